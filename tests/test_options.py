"""What options may be typed, how errors are spelt, and what the help must show.

Everything that depends on tyro or pydantic is checked here: `make test-newest` runs these tests
with the newest releases of both.
"""

import re
from dataclasses import MISSING, fields
from operator import attrgetter
from pathlib import Path
from types import NoneType
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml
from pydantic import BaseModel, RootModel

from twinscore import cli, commands
from twinscore.errors import InputError
from twinscore.options import SHELLS, _flags, _with_spec, parse
from twinscore.spec_files import shipped

HELP = "--help lists the options"
SPELT = {
    "list of a part": (
        ["mixture", "--shift.weights", "0"],
        "--shift.weights: give weights of the lighter mode in (0, 0.5), got [0.0]",
    ),
    "number in a list of a part": (
        ["mixture", "--shift.weights", "0.1", "inf"],
        "--shift.weights: should be a finite number, got inf",
    ),
    "number in a list": (
        ["regularity", "--fit-range", "10", "inf"],
        "--fit-range: should be a finite number, got inf",
    ),
    "underscore typed": (
        ["mixture", "--tau_last", "nan"],
        "--tau-last: should be a finite number, got nan",
    ),
    "spec's own check": (
        ["regularity", "--alphas", "1", "-1"],
        "--alphas: give one or more alphas above 0 and up to 10, got [1.0, -1.0]",
    ),
    "check of a part": (
        ["transition", "--network.layers", "3"],
        "--network: unet has no field layers; it has width, levels, convolutions",
    ),
    "value missing at the end": (["mixture", "--seed"], "--seed: give a value after it"),
    "value missing before a flag": (
        ["mixture", "--seed", "--mu", "1"],
        "--seed: give a value after it",
    ),
    "kind of a part": (
        ["transition", "--network.kind", "resnet"],
        "--network.kind: give one of unet, bf_cnn, conditioned_unet, own; got resnet",
    ),
    "field of a part": (
        ["transition", "--network.width", "0"],
        "--network.width: should be greater than or equal to 1, got 0",
    ),
    "empty value": (["transition", "--data", ""], "--data: give a value after it"),
    "empty value after =": (["transition", "--out="], "--out: give a value after it"),
    "too few values": (["regularity", "--fit-range", "10"], "--fit-range: give 2 values after it"),
    "values missing": (["manifold", "--radius"], "--radius: give 2 values after it"),
    "too many values": (["mixture", "--seed", "1", "2"], f"2: no such option; {HELP}"),
    "value of a switch": (
        ["mixture", "--estimate=no"],
        "--estimate: takes no value, got no; leave it out",
    ),
    "given twice": (["mixture", "--seed", "1", "--seed=1"], "--seed: given twice; give it once"),
    "given twice in two spellings": (
        ["sample", "--quality", "draft", "--sampling.quality", "draft"],
        "--sampling.quality: given twice; give it once",
    ),
    "switch given twice": (
        ["mixture", "--estimate", "--estimate"],
        "--estimate: given twice; give it once",
    ),
    "two files": (
        ["mixture", "--spec=demo", "--spec", "demo"],
        "--spec: given twice; give it once",
    ),
    "part left out and misspelt": (
        ["transition", "--stepps", "3"],
        "--stepps: no such option; did you mean --training.steps or --sampling.steps?",
    ),
    "commas where one number is taken": (
        ["mixture", "--seed", "1,2"],
        "--seed: 1,2 is not a whole number",
    ),
    "too many of them": (
        ["transition", "--sizes", *map(str, range(1, 102))],
        "--sizes: give at most 100 of them, got 101",
    ),
    "one dash": (["mixture", "-x"], f"-x: no such option; {HELP}"),
    "only dashes": (["mixture", "--"], f"--: no such option; {HELP}"),
    "unlike any flag": (["mixture", "--qqq=3"], f"--qqq: no such option; {HELP}"),
    "short flag elsewhere": (
        ["mixture", "--quality", "draft"],
        f"--quality: no such option; {HELP}",
    ),
    "singular": (["transition", "--size", "3"], "--size: no such option; did you mean --sizes?"),
    "capital": (["mixture", "--Seed", "3"], "--Seed: no such option; did you mean --seed?"),
    "part left out": (
        ["transition", "--steps", "3"],
        "--steps: no such option; did you mean --training.steps or --sampling.steps?",
    ),
    "text for a number": (
        ["transition", "--sizes", "2", "a  b\nc"],
        "--sizes: 'a b c' is not a whole number",
    ),
    "commas between numbers": (
        ["transition", "--sizes", "10,100"],
        "--sizes: 10,100 is not a whole number; give several as 10 100",
    ),
    "fraction": (
        ["mixture", "--workers", "1.5"],
        "--workers: 1.5 is not a whole number",
    ),
    "choice in a list": (
        ["regularity", "--generators", "published", "mine"],
        "--generators: should be 'published' or 'regularity', got mine",
    ),
    "choice of the command": (
        ["train", "--device", "tpu"],
        "--device: give one of auto, cpu, cuda, mps; got tpu",
    ),
    "6,000 digits": (
        ["mixture", "--seed", "9" * 6000],
        f"--seed: {'9' * 77}... is not a whole number of a usual size",
    ),
    "bytes that are not UTF-8": (
        ["harmonics", "--names", "caf\udce9"],
        "--names: 'caf\\udce9' is not UTF-8; give it another name",
    ),
    "6,000 digits before the point": (
        ["mixture", "--mu", "9" * 6000],
        f"--mu: should be a finite number, got {'9' * 77}...",
    ),
}


@pytest.mark.parametrize("case", SPELT)
def test_an_error_is_one_line_that_names_the_flag(capsys, case):
    words, complaint = SPELT[case]
    assert cli.main([words[0], "--print-spec", *words[1:]]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"twinscore: {complaint}\n")


READ = {
    "after =": (["mixture", "--seed=3"], {"seed": 3}),
    "negative": (["regularity", "--fit-range", "-5", "1e1"], {"fit_range": [-5.0, 10.0]}),
    "negative after =": (["sample", "--mean=-.5"], {"mean": -0.5}),
    "list after =": (["transition", "--sizes=3", "4"], {"sizes": [3, 4]}),
    "empty list": (["harmonics", "--names"], {"names": []}),
    "none": (["manifold", "--radius", "None"], {"radius": None}),
    "equals within a value": (["transition", "--data=a,size=8"], {"data": "a,size=8"}),
    "flag as a value": (["transition", "--data=--seed"], {"data": "--seed"}),
    "part": (["mixture", "--twins.count", "4"], {"twins": {"count": 4}}),
    "without its part": (["sample", "--quality", "draft"], {"sampling": {"quality": "draft"}}),
    "another kind of a part": (
        ["train", "--network.kind=bf_cnn", "--network.layers=3", "--network.levels=None"],
        {"network": {"kind": "bf_cnn", "layers": 3}},
    ),
    "over a file": (["mixture", "--spec", "{file}", "--seed", "3"], {"seed": 3, "rate": 5.0}),
    "part over a file": (
        ["mixture", "--spec", "{file}", "--twins.width=9"],
        {"twins": {"width": 9, "count": 7}, "shift": {"width": 8}},
    ),
}


@pytest.fixture
def file(tmp_path):
    """A spec that changes some fields."""
    path = tmp_path / "spec.yaml"
    path.write_text("{rate: 5, twins: {width: 8, count: 7}, shift: {width: 8}}")
    return path


def within(part, whole):
    """Whether nested mappings hold what others hold."""
    if not isinstance(part, dict):
        return part == whole
    return all(within(value, whole[key]) for key, value in part.items())


@pytest.mark.parametrize("case", READ)
def test_what_may_be_typed(capsys, file, case):
    words, changed = READ[case]
    command, *words = [word.format(file=file) for word in words]
    assert cli.main([command, "--print-spec"]) == 0
    default = yaml.safe_load(capsys.readouterr().out)
    assert not within(changed, default) or case in {"empty list", "none"}
    assert cli.main([command, "--print-spec", *words]) == 0
    assert within(changed, yaml.safe_load(capsys.readouterr().out))


BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
WRONG = {
    "seed: " + "9" * 6000: f"seed: {'9' * 77}... is not a whole number of a usual size",
    "seed: 0x" + "f" * 6000: f"seed: 0x{'f' * 75}... is not a whole number",
    "1: 2": "not a spec: line 1: the name of a field must be text, got 1 (int)",
    "shift:\n  null: 2": "not a spec: line 2: the name of a field must be text, got null (null)",
    "[a]: 2": "not a spec: line 1: the name of a field must be text, got (seq)",
    "seed: 1\nseed: 2": "not a spec: line 2: seed is given twice",
    "shift: {width: 1, width: 2}": "not a spec: line 1: width is given twice",
    "mu: [1,\n  2]": "mu: [1, 2] is not a number",
    "mu: .nan": "mu: should be a finite number, got nan",
    "mu: 2020-01-01": "mu: 2020-01-01 is not a number",
    "mu: !!binary aGVsbG8=": "not a spec: line 1: tags (!) are not taken; write the value alone",
    "mu: !!python/object/apply:os.system [ls]": "not a spec: line 1: tags (!) are not taken",
    "mu: &a 1": "not a spec: line 1: anchors (&) and aliases (*) are not taken",
    "seed: 1\nmu: *a": "not a spec: line 2: anchors (&) and aliases (*) are not taken",
    "<<: {mu: 1}": "<<: no such field",
    BOMB: "not a spec: line 1: anchors (&) and aliases (*) are not taken; write the value out",
    "mu: " + "[" * 50_000: "not a spec: line 1: nested more than 10 deep",
    "a: {" * 20_000: "not a spec: line 1: nested more than 10 deep",
    "- " * 40_000: "not a spec: line 1: nested more than 10 deep",
    "mu: 1\n" * 20_000: "has more than 100,000 bytes; a spec has a few thousand",
    "mu: [1": "not a spec: line 1: while parsing a flow sequence expected ',' or ']'",
    "mu: 1\n---\nmu: 2": "not a spec: line 2: expected a single document in the stream",
    "": "must hold fields and values, as --print-spec prints them",
    "\0": "not YAML: unacceptable character #x0000",
    "mu: \x1b[2J": "not YAML: unacceptable character #x001b",
}


@pytest.mark.parametrize("content", WRONG, ids=lambda content: content[:30])
def test_errors_in_a_file_name_it(capsys, tmp_path, content):
    path = tmp_path / "spec.yaml"
    path.write_text(content)
    assert cli.main(["mixture", "--spec", str(path), "--seed", "1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"twinscore: {path}: {WRONG[content]}")
    assert said.count("\n") == 1


def test_what_cannot_be_read_is_not_a_spec(capsys, tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"data: \xe9\xff")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    said = {
        "": "--spec: give a value after it",
        "nowhere": "--spec: nowhere is neither a file nor a shipped spec; shipped: ",
        "a" * 5000: f"--spec: {'a' * 77}... is neither a file nor a shipped spec; shipped: ",
        "no\0where": "--spec: 'no\0where' is neither a file nor a shipped spec; shipped: ",
        str(tmp_path): f"{tmp_path}: cannot be read: Is a directory; give a YAML file",
        "/dev/zero": "/dev/zero: has more than 100,000 bytes; a spec has a few thousand",
        str(tmp_path / "latin.yaml"): f"{tmp_path / 'latin.yaml'}: not YAML: 'utf-8' codec",
        str(tmp_path / "loop.yaml"): f"{tmp_path / 'loop.yaml'}: cannot be read: Too many levels",
    }
    for name, complaint in said.items():
        assert cli.main(["mixture", "--spec", name]) == 2
        assert capsys.readouterr().err.startswith(f"twinscore: {complaint}")


def test_plain_text_in_a_file_is_what_was_written(capsys, tmp_path):
    """Neither dates nor yes and no are read into what they might mean."""
    path = tmp_path / "spec.yaml"
    for text in ("2020-01-01", "1:30", "yes", "0x1F", "1_000", "1e5", "010", "é"):
        path.write_text(f"data: {text}")
        assert cli.main(["train", "--spec", str(path), "--print-spec"]) == 0
        printed = capsys.readouterr().out
        assert yaml.safe_load(printed)["data"] == text
        path.write_text(printed)
        assert cli.main(["train", "--spec", str(path), "--print-spec"]) == 0
        assert capsys.readouterr().out == printed


# The contract with tyro and pydantic


def parsed(command):
    """What a command gives to `parse`, behind its words."""
    caught = []

    def stop(words, *rest):
        caught.extend(rest)
        raise InputError("caught")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "parse", stop)
        assert cli.main([command]) == 2
    return caught


def leaves(spec, listed, prefix="--"):
    """Flags of a spec's listed fields with their values."""
    for name in listed(spec):
        flag, value = prefix + name.replace("_", "-"), getattr(spec, name)
        value = value.root if isinstance(value, RootModel) else value
        inner = isinstance(value, BaseModel)
        yield from leaves(value, listed, f"{flag}.") if inner else [(flag, value)]


def every(spec):
    """Names of a spec's fields."""
    return type(spec).model_fields


@pytest.mark.parametrize("command", cli.commands())
def test_the_help_shows_every_flag_and_no_other(capsys, command):
    options, spec_type, _ = parsed(command)
    flags = {f"--{f.name.replace('_', '-')}" for f in fields(options) if f.default is not MISSING}
    if spec_type is not None:
        flags |= dict(leaves(spec_type(), every)).keys()
        flags |= (
            {"--network.layers", "--network.blocks", "--network.source", "--network.source-digest"}
            if "--network.kind" in flags
            else set()
        )
    capsys.readouterr()
    code = cli.main([command, "--unknown", "--help"])
    said = capsys.readouterr()
    assert (code, said.err) == (0, "")
    assert set(re.findall(r"^\W*?(--\w[\w.-]*)", said.out, flags=re.M)) == flags
    assert said.out.startswith(f"usage: twinscore {command} ")
    assert ("--spec NAME" in said.out) == (spec_type is not None)


@pytest.mark.parametrize("command", sorted(set(cli.commands()) - {"report"}))
def test_every_field_can_be_typed_as_the_spec_shows_it(command):
    options, spec_type, _ = parsed(command)
    default = spec_type()
    typed = {
        flag: value for flag, value in leaves(default, every) if value != "" and value is not False
    }
    words = [
        word
        for flag, value in typed.items()
        for word in (flag, *map(str, value if isinstance(value, tuple) else [value]))
    ]
    spec = parse(words, options, spec_type, command).spec
    assert spec == default
    assert typed.keys() == dict(leaves(spec, attrgetter("model_fields_set"))).keys()


def test_the_help_shows_docstrings_and_the_defaults_of_the_spec(capsys, file):
    assert cli.main(["mixture", "--spec", str(file), "-h"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--rate FLOAT Largest rate beta" in said.replace("│ ", "")
    assert "(default: 5.0)" in said


# Every option of every command

WRONG_WORDS = {
    int: ("two", "1.5", "1,2", "nan", "", None),
    float: ("two", "1,2", "nan", "1e400", "0x1", "", None),
    bool: ("maybe", "1", ""),
    str: ("", None),
    Path: ("", None),
}
"""What is not of a type; None where nothing follows the flag."""
INTERNALS = re.compile(
    r"traceback|pydantic|tyro|validat|valueerror|typeerror|\bNone\b|<|Input |_type"
)


def typed(kind):
    """The type of one word of a flag; a choice is its own."""
    inner = [each for each in get_args(kind) if each not in (NoneType, Ellipsis)]
    if get_origin(kind) is Annotated or (inner and get_origin(kind) is not Literal):
        return typed(inner[0])
    return kind


def takes_several(kind):
    """Whether a flag takes more words than one."""
    return any(get_origin(each) is tuple for each in (kind, *get_args(kind)))


def every_flag(command):
    """Flags of a command with the types of their words."""
    options, spec_type, _ = parsed(command)
    whole = options if spec_type is None else _with_spec(options, spec_type)
    placed = {each.name for each in fields(whole) if each.default is MISSING}
    kinds = {k: v for k, v in get_type_hints(whole).items() if k not in placed}
    return {flag: kind for flag, (_, kind) in _flags(kinds).items()}


def choices_of_kind(flags, flag):
    """Words that choose each kind of a flag's part in turn; some have fields that others lack."""
    kind = f"{flag.rpartition('.')[0]}.kind"
    return [[kind, each] for each in get_args(flags[kind])] if kind in {*flags} - {flag} else [[]]


def complaint(capsys, command, words):
    """What a command says of words that it must refuse."""
    start = [command, "run"] if command == "report" else [command]
    capsys.readouterr()
    assert cli.main([*start, *words]) == 2, words
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert len(said.err) < 500
    return said.err


@pytest.mark.parametrize("command", cli.commands())
def test_a_word_of_the_wrong_type_is_one_line_that_names_the_flag(capsys, command):
    flags = every_flag(command)
    for flag, kind in flags.items():
        one = typed(kind)
        known = get_origin(one) is Literal
        for word in ("neither", "", None) if known else WRONG_WORDS[one]:
            if word is None and (one is bool or takes_several(kind)):
                continue  # a switch; an empty list, which some take
            words = [flag] if word is None else [f"{flag}={word}"]
            said = [
                complaint(capsys, command, [*chosen, *words])
                for chosen in choices_of_kind(flags, flag)
            ]
            assert any(each.startswith(f"twinscore: {flag}: ") for each in said)
            assert not any(map(INTERNALS.search, said)), said


@pytest.mark.parametrize("command", cli.commands())
def test_bytes_that_are_not_utf8_are_refused_by_every_flag_that_takes_text(capsys, command):
    for flag, kind in every_flag(command).items():
        if typed(kind) in (str, Path) and flag != "--spec":
            said = complaint(capsys, command, [f"{flag}=caf\udce9"])
            assert said == f"twinscore: {flag}: 'caf\\udce9' is not UTF-8; give it another name\n"


@pytest.mark.parametrize("command", cli.commands())
def test_a_flag_given_twice_is_named(capsys, command):
    for flag, kind in every_flag(command).items():
        inner = get_args(typed(kind))
        word = [] if kind is bool else [str(inner[0]) if inner else "1"] * 2
        words = [flag, *word[: 2 if takes_several(kind) else 1]]
        said = complaint(capsys, command, [*words, *words])
        assert said == f"twinscore: {flag}: given twice; give it once\n"


@pytest.mark.parametrize("command", cli.commands())
def test_a_misspelt_flag_is_answered_with_the_right_one(capsys, command):
    """The last letter is doubled."""
    flags = every_flag(command)
    for flag in flags:
        misspelt = flag + flag[-1]
        if len(flag.rpartition(".")[2].lstrip("-")) > 3 and misspelt not in flags:
            said = complaint(capsys, command, [misspelt])
            assert said.startswith(f"twinscore: {misspelt}: no such option; did you mean --")
            assert flag in said


@pytest.mark.parametrize("command", cli.commands())
@pytest.mark.parametrize(
    "spoil", [lambda x: x[:-1], str.upper, lambda x: x[0] + x, lambda x: f"--{x}"]
)
def test_a_misspelt_command_is_answered_with_the_right_one(capsys, command, spoil):
    assert cli.main([spoil(command)]) == 2
    said = capsys.readouterr().err
    assert said == f"twinscore: {spoil(command)}: no such command; did you mean {command}?\n"


def test_a_word_unlike_any_command_is_shown_all_on_one_line(capsys):
    assert cli.main(["q\nq" * 999]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert len(said) < 400
    assert all(command in said for command in cli.commands())


@pytest.mark.parametrize("command", cli.commands())
def test_the_help_says_what_happens_by_default_and_not_none(capsys, command):
    assert cli.main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert "default: None" not in " ".join(said.replace("│", "").split())
    own = [name for name, study in shipped().items() if study == command]
    assert all(re.search(rf"\b{name}\b", said) for name in own)


@pytest.mark.parametrize(("name", "command"), shipped().items())
def test_shipped_specs_are_of_the_command_that_they_name(name, command):
    options, spec_type, _ = parsed(command)
    assert parse(["--spec", name], options, spec_type, command).spec


def test_a_misspelt_spec_is_answered_with_the_one_meant(capsys):
    assert cli.main(["transition", "--spec", "quick-twin"]) == 2
    assert "did you mean quick-twins?" in capsys.readouterr().err


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_complete_every_command_and_its_flags(capsys, shell):
    assert cli.main(["--print-completion", shell]) == 0
    said = capsys.readouterr().out
    assert all(command in said for command in cli.commands())
    assert all(flag in said for flag in ("--fail-if", "--network.kind", "--no-images"))


def test_completion_of_an_unknown_shell_is_refused(capsys):
    assert cli.main(["--print-completion", "dos"]) == 2
    assert capsys.readouterr().err == "twinscore: --print-completion: name a shell: bash, zsh\n"


def test_an_option_before_the_command_is_answered_with_the_order(capsys):
    assert cli.main(["--spec", "demo"]) == 2
    assert "--spec: give a command first" in capsys.readouterr().err
