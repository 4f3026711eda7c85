"""An audit on paper."""
from twinscore.report.content import Content
def content(run):
    return Content("twinscore: audit", run.result.verdict, ())
