"""How complaints of the command line are spelt."""

import pytest

from twinscore import cli

SPELT = {
    "list of a part": (
        ["mixture", "--shift.weights", "0"],
        "--shift.weights: give weights of the lighter mode in (0, 0.5), got [0.0]",
    ),
    "number in a list of a part": (
        ["mixture", "--shift.weights", "0.1", "inf"],
        "--shift.weights: Input should be a finite number, got inf",
    ),
    "number in a list": (
        ["regularity", "--fit-range", "10", "inf"],
        "--fit-range: Input should be a finite number, got inf",
    ),
    "underscore typed": (
        ["mixture", "--tau_last", "nan"],
        "--tau-last: Input should be a finite number, got nan",
    ),
    "spec's own check": (
        ["regularity", "--alphas", "1", "-1"],
        "--alphas: give one or more alphas above 0 and up to 10, got [1.0, -1.0]",
    ),
}


@pytest.mark.parametrize("case", SPELT)
def test_a_complaint_names_the_flag_as_the_help_spells_it(capsys, case):
    words, complaint = SPELT[case]
    assert cli.main([*words, "--print-spec"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"twinscore: {complaint}\n")
    with pytest.raises(SystemExit):
        cli.main([words[0], "--help"])
    flag = complaint.partition(":")[0]
    assert f"{flag} " in capsys.readouterr().out
