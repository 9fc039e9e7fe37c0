"""Pages of HTML: one file each, with its style sheet and its pictures in it, and nothing loaded from elsewhere."""

import jinja2

from dporun_trainer.reporting import drawing, histograms
from dporun_trainer.reporting.numbers import number, percent


def page(template: str, **values: object) -> str:
    """Render a template of this package; texts among ``values`` are escaped, as models and users wrote them."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dporun_trainer.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["svg"] = drawing.svg
    environment.filters["bars"] = histograms.svg
    environment.filters["number"] = number
    environment.filters["percent"] = percent
    return environment.get_template(template).render(**values)
