"""A report as HTML, for notebooks."""

from __future__ import annotations

from base64 import b64encode
from html import escape

from treadle.ir.errors import TreadleError
from treadle.nn.recipe.report import Finding, Report

_COLOURS = {"error": "#c62828", "warning": "#b26a00", "note": "#1565c0"}


def report_html(report: Report) -> str:
    """The findings as a table, and each section behind a fold; everything is escaped."""
    parts = [f"<div><b>{escape(report.summary)}</b>"]
    if report.findings:
        rows = "".join(map(_row, report.findings))
        parts.append(f'<table style="text-align:left">{rows}</table>')
    parts += [
        f"<details><summary>{escape(s.title)} ({s.seconds:.1f} s)</summary>"
        f"<pre>{escape(s.text)}</pre></details>"
        for s in report.sections
    ]
    parts.append(_picture(report))
    if report.skipped:
        parts.append(f"<pre>skipped: {escape('; '.join(report.skipped))}</pre>")
    return "\n".join([*parts, "</div>"])


def _picture(report: Report) -> str:
    """The grid of samples, where they are images and matplotlib is installed."""
    try:
        data = b64encode(report.picture()).decode()
    except TreadleError:
        return ""
    return f'<img src="data:image/png;base64,{data}" alt="samples">'


def _row(finding: Finding) -> str:
    where = "<br>".join(escape(w) for w in (finding.layer, finding.line) if w)
    fix = f"<br><i>{escape(finding.fix)}</i>" if finding.fix else ""
    colour = _COLOURS[finding.severity]
    return (
        f'<tr><td style="color:{colour}"><b>{finding.severity}</b></td>'
        f"<td>{escape(finding.code)}</td><td>{where}</td>"
        f'<td style="text-align:left">{escape(finding.message)}{fix}</td></tr>'
    )
