"""The page itself: sections in order, each filled into its own template, with head, contents and style around them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.reporting.summary import KeyFigure, Notice

_TEMPLATES = Path(__file__).parents[1] / "templates"
RESEARCH_ONLY = "Research use only. This page names no patient and no image."


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes
    ----------
    id : str
        Of its heading, for links; the template is `sections/ID.html`.
    title : str
        Its heading, without a number.
    content : dict
        What its template shows: strings that are ready to print, and geometry of the figures.
    """

    id: str
    title: str
    content: dict[str, Any]


def render_page(
    title: str,
    headline: str,
    notices: Sequence[Notice],
    sections: Sequence[Section],
    *,
    figures: Sequence[KeyFigure] = (),
    footer: str = RESEARCH_ONLY,
) -> str:
    """Fill the templates; the same arguments give the same text.

    Parameters
    ----------
    title, headline : str
        Heading of the page and the result in a sentence.
    notices : sequence of Notice
        Warnings, the most serious first.
    sections : sequence of Section
        In the order of the page; they are numbered from 1.
    figures : sequence of KeyFigure
        Shown below the headline.
    footer : str
        The last line.

    Returns
    -------
    str
        One HTML document that fetches nothing and runs no script. Every value is escaped; a name that a template wants
        and a section lacks is an error (`jinja2.UndefinedError`).
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    bodies = [
        Markup(environment.get_template(f"sections/{section.id}.html").render(section.content))  # noqa: S704 (escaped)
        for section in sections
    ]
    page = environment.get_template("page.html").render(
        title=title,
        headline=headline,
        notices=notices,
        figures=figures,
        footer=footer,
        sections=[
            {"id": section.id, "title": section.title, "body": body}
            for section, body in zip(sections, bodies, strict=True)
        ],
    )
    return page + "\n"
