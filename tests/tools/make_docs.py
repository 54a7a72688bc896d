"""Make the static pages of ``make docs``: the README, an API reference, the notebooks with outputs.

The reference is made from docstrings by pdoc; a page that would not be whole is an error. Nothing
is fetched and nothing is hosted: open ``index.html``.
"""

import argparse
import importlib
import inspect
import pkgutil
import re
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import is_dataclass
from html import escape, unescape
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import markdown2
import pdoc
from nbconvert import HTMLExporter

import qbhkit

ROOT = Path(__file__).parents[2]
TEXTS = {
    "README": "README.md",
    "Course": "notebooks/README.md",
    "Results": "data/results/README.md",
    "CONTRIBUTING": "CONTRIBUTING.md",
    "DECISIONS": "DECISIONS.md",
    "CHANGELOG": "CHANGELOG.md",
}
BENCHMARKS = "qbhkit.evaluation.benchmarks"  # scripts: 'qbhkit bench' describes them
FACTS = "DECISIONS.html#the-published-method-the-fixed-facts"
STYLE = """body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; line-height: 1.5;
  font-family: system-ui, sans-serif }
:not(pre) > code { white-space: nowrap }  /* no break after the hyphens of an option */
@media (max-width: 45rem) { :not(pre) > code { white-space: normal } }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 0.85rem }
th, td { border: 1px solid #ccc; padding: 0.2rem 0.5rem } img { max-width: 100% }
pre { background: #f6f6f6; padding: 0.7rem; overflow-x: auto }"""


def public_modules() -> list[str]:
    """Return the names of the kit's modules, without private ones and benchmarks."""
    found = pkgutil.walk_packages(qbhkit.__path__, "qbhkit.")
    names = ["qbhkit", *(module.name for module in found)]
    public = [name for name in names if not any(part[0] == "_" for part in name.split("."))]
    return [name for name in public if not name.startswith(BENCHMARKS)]


def reference(out: Path, names: list[str]) -> None:
    """Write one page for each module; warnings of pdoc are errors."""
    modules = [importlib.import_module(name) for name in names]
    packages = [module for module in modules if hasattr(module, "__path__")]
    for module in modules:
        describe_fields(module)
    # A package's page lists its modules, not what it re-exports.
    exported = [
        {key: vars(package).pop(key) for key in ("__all__", "__dir__") if key in vars(package)}
        for package in packages
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # A NamedTuple and a pydantic model have no module of their own: some types stay words.
        warnings.filterwarnings("ignore", "Error parsing type annotation ForwardRef")
        warnings.filterwarnings("ignore", "Cannot determine where")
        pdoc.render.configure(
            docformat="google", show_source=False, footer_text=f"qbhkit {qbhkit.__version__}"
        )
        pdoc.pdoc("qbhkit", f"!{BENCHMARKS}", output_directory=out)
    for package, exports in zip(packages, exported, strict=True):
        vars(package).update(exports)
    for page in out.rglob("*.html"):
        up = "../" * (len(page.relative_to(out).parts) - 1)
        html = page.read_text("utf-8")
        html = re.sub(
            r"notebooks/(\w+)\.py", rf'<a href="{up}notebooks/\1.html">notebooks/\1.py</a>', html
        )
        # What a model inherits from pydantic links to pydantic's own pages.
        html = re.sub(r'<a href="\.\./concepts/[^"]*">(.*?)</a>', r"\1", html)
        html = html.replace("fixed facts,", f'<a href="{up}{FACTS}">fixed facts</a>,')
        home = f'<p><a href="{up}index.html">README and notebooks</a></p>'
        html = html.replace('<nav class="pdoc">', f'<nav class="pdoc">{home}', 1)
        if page == out / "qbhkit.html":
            html = html.replace("</section>", f"{overview(names)}</section>", 1)
        page.write_text(html, "utf-8")


def describe_fields(module: ModuleType) -> None:
    """Give the fields of NamedTuples and dataclasses the comments behind them, with the shapes."""
    for kind in vars(module).values():
        if not isinstance(kind, type) or kind.__module__ != module.__name__:
            continue
        if hasattr(kind, "_fields") or is_dataclass(kind):
            comments = dict(
                re.findall(r"^    (\w+): .*?# (.*)$", inspect.getsource(kind), re.MULTILINE)
            )
        if hasattr(kind, "_fields"):
            for name in kind._fields:
                getattr(kind, name).__doc__ = comments.get(name, "")
            kind.__new__.__doc__ = ""
        elif is_dataclass(kind) and comments and "Args:" not in str(kind.__doc__):
            lines = (f"    {name}: {comment}" for name, comment in comments.items())
            kind.__doc__ = "\n".join([inspect.cleandoc(str(kind.__doc__)), "", "Args:", *lines])


def overview(names: list[str]) -> str:
    """Return a list of modules, each with the first sentence of its docstring."""
    entries = []
    for name in names[1:]:
        text = (importlib.import_module(name).__doc__ or "").split("\n\n")[0].replace("``", "")
        entries.append(
            f'<li><a href="{name.replace(".", "/")}.html">{name}</a>: {escape(text)}</li>'
        )
    return f'<ul class="docstring">{"".join(entries)}</ul>'


def page_of(path: str) -> str:
    """Return the page that shows a file of the repository: a link to one is a link to the other."""
    path = re.sub(r"/__init__\.py$|\.(?:ipynb|py|md)$", ".html", path)
    return re.sub(r"README\.html$", "index.html", path)


def linked(html: str) -> str:
    """Return a page whose links to files of the repository lead to their pages."""

    def page(match: re.Match[str]) -> str:
        start, path, end, text = match.groups()
        module = page_of(path).removeprefix("../").removesuffix(".html").replace("/", ".")
        name = text.removeprefix("<code>").removeprefix(f"{module}.")
        fragment = f"#{name}" if module.startswith("qbhkit") and name.isidentifier() else ""
        return f"{start}{page_of(path)}{fragment}{end}{text}"

    return re.sub(
        r'(href=")((?!\w+:)[^"#]+\.(?:ipynb|py|md))("[^>]*>)([^<]*(?:<code>[\w.]+)?)', page, html
    )


def links(up: str) -> str:
    """Return the line that leads from every text to the others."""
    pages = {name: page_of(path) for name, path in TEXTS.items()} | {"API": "qbhkit.html"}
    named = (f'<a href="{up}{page}">{name}</a>' for name, page in pages.items())
    return f"<p>{' · '.join(named)}</p>"


def notebooks(out: Path) -> None:
    """Write each committed notebook, outputs included, as a page."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        page, _ = HTMLExporter().from_filename(str(path))
        top = f'<div class="jp-RenderedHTMLCommon">{links("../")}</div>'  # in Jupyter's style
        page = re.sub(r"(<body[^>]*>)", rf"\1\n{top}", page, count=1)
        (out / f"{path.stem}.html").write_text(linked(page), "utf-8")
    for picture in (ROOT / "notebooks").glob("*.png"):
        shutil.copy(picture, out)


def texts(out: Path) -> None:
    """Write the repository's texts as pages, with their figures; ``README`` is ``index.html``."""
    for name, path in TEXTS.items():
        extras = ["tables", "fenced-code-blocks", "header-ids", "cuddled-lists"]
        body = linked(markdown2.markdown((ROOT / path).read_text("utf-8"), extras=extras))
        target = out / page_of(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        page = (
            f'<!doctype html><meta charset="utf-8"><title>qbhkit: {name}</title>'
            f"<style>{STYLE}</style>{links('../' * path.count('/'))}{body}"
        )
        target.write_text(page, "utf-8")
    shutil.copy(ROOT / "CITATION.cff", out)
    shutil.copytree(ROOT / "figures", out / "figures", dirs_exist_ok=True)


def dead_links(out: Path) -> Iterator[str]:
    """Name every link to a page that is not there, or to a part that its page does not have."""
    shown = {
        page: re.sub(r"<(script|style).*?</\1>", "", page.read_text("utf-8"), flags=re.DOTALL)
        for page in out.rglob("*.html")
    }
    parts = {
        page: {unquote(unescape(name)) for name in re.findall(r'\bid="([^"]+)"', text)}
        for page, text in shown.items()
    }
    for page, text in shown.items():
        for link in sorted(set(re.findall(r'(?:href|src)="([^"]+)"', text))):
            path, _, part = unquote(unescape(link)).partition("#")
            path = path.partition("?")[0]
            target = (page.parent / path).resolve() if path else page
            if re.match(r"\w+:|//", link) or (target.exists() and not part):
                continue
            if part not in parts.get(target, ()):
                yield f"{page.relative_to(out)} links to {link}"


def main() -> None:
    """Write all pages."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    make(parser.parse_args().out)


def make(out: Path) -> None:
    """Write all pages into a folder of their own, emptied first; exit if a link leads nowhere."""
    shutil.rmtree(out, ignore_errors=True)
    reference(out, public_modules())
    notebooks(out / "notebooks")
    texts(out)
    if found := list(dead_links(out)):
        raise SystemExit("\n".join(found))
    print(f"The pages: {out / 'index.html'}")


if __name__ == "__main__":
    main()
