"""The pages of ``make docs``: every public module has one, no link is dead, nothing is broken."""

import re

import make_docs
import pytest

import qbhkit


def empty_notebooks(out):
    """Stand in for the notebooks' pages, which test_notebooks.py makes by the same exporter."""
    out.mkdir(parents=True)
    for path in (make_docs.ROOT / "notebooks").glob("*.*"):
        (out / path.name).with_suffix(".html" if path.suffix == ".ipynb" else path.suffix).touch()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """All pages, made once; pdoc's warnings are errors, and so are dead links."""
    out = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_docs, "notebooks", empty_notebooks)
        make_docs.make(out)
    return out


def test_every_public_module_has_its_page(pages):
    names = make_docs.public_modules()
    assert "qbhkit.retrieval.searcher" in names
    assert not any("._" in name for name in names)
    for name in names:
        assert (pages / f"{name.replace('.', '/')}.html").is_file()
        assert name == "qbhkit" or f">{name}</a>" in (pages / "qbhkit.html").read_text("utf-8")


def test_shapes_sources_and_notebooks_are_on_the_page(pages):
    page = (pages / "qbhkit/embedding/encoders.html").read_text("utf-8")
    text = " ".join(re.sub(r"<[^>]+>", "", page).split())
    assert "Contour (B, L, 2) to vector (B, embedding_dim)" in text
    assert 'Source: fixed facts, "Embedding network"' in text
    assert '<a href="../../notebooks/05_encoder_and_loss.html">' in page
    assert f'href="../../{make_docs.FACTS}"' in page


def test_the_fields_of_a_named_tuple_have_their_shapes(pages):
    page = (pages / "qbhkit/retrieval/index.html").read_text("utf-8")
    assert "(Q, k) cosines; -1 where there are fewer windows" in page
    assert not any("Alias for field" in path.read_text("utf-8") for path in pages.rglob("*.html"))


def test_the_linked_facts_are_there(pages):
    page, fragment = make_docs.FACTS.split("#")
    assert f'id="{fragment}"' in (pages / page).read_text("utf-8")


def test_no_markup_is_left_over(pages):
    for page in (pages / "qbhkit").rglob("*.html"):
        text = re.sub(
            r"<pre>.*?</pre>|<code>.*?</code>", "", page.read_text("utf-8"), flags=re.DOTALL
        )
        assert not re.search(r":(?:func|class|mod|meth):", text), page.name
        assert "``" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL), page.name
    assert "__all__" in vars(qbhkit)  # the package is as it was


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "page.html").write_text('<a href="gone.html#there">x</a> <a href="page.html">y</a>')
    assert list(make_docs.dead_links(tmp_path)) == ["page.html links to gone.html"]
