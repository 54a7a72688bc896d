"""The pages of ``make docs``: every public module has one, no link is dead, nothing is broken."""

import re

import make_docs
import pytest


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """All pages, made once; pdoc's warnings are errors, and so are dead links."""
    out = tmp_path_factory.mktemp("docs")
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
    assert "contours (B, L, 2) as vectors (B, embedding_dim)" in text
    assert 'Source: fixed facts, "Embedding network"' in text
    assert '<a href="../../notebooks/05_encoder_and_loss.html">' in page
    assert f'href="../../{make_docs.FACTS}"' in page
    page = (pages / "qbhkit/retrieval/index.html").read_text("utf-8")  # of a named tuple
    assert "(Q, k) cosines; -1 where there are fewer windows" in page


def test_no_markup_is_left_over(pages):
    for page in (pages / "qbhkit").rglob("*.html"):
        text = re.sub(
            r"<pre>.*?</pre>|<code>.*?</code>", "", page.read_text("utf-8"), flags=re.DOTALL
        )
        assert not re.search(r":(?:func|class|mod|meth):", text), page.name
        assert "``" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL), page.name


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "page.html").write_text(
        '<a href="gone.html#there">x</a> <a href="page.html?q#here">y</a> <a href="#lost">z</a>'
        '<p id="here"><a href="https://example.org/gone.html">w</a>'
    )
    found = ["page.html links to #lost", "page.html links to gone.html#there"]
    assert list(make_docs.dead_links(tmp_path)) == found
