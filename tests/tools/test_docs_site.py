"""The documentation site."""

import importlib
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

import supcon_tf

ROOT = Path(__file__).parents[2]
# Packages whose public names are for other modules only, or are on the page of another module.
INTERNAL = {"supcon_tf.config", "supcon_tf.losses.streaming"}


@pytest.fixture
def site(tool):
    return tool("docs_site")


@pytest.fixture
def reference(tool):
    return tool("reference_pages")


@pytest.fixture
def docstrings(tool):
    return tool("docstrings")


def navigation(entry):
    """The pages of an entry of the navigation."""
    if isinstance(entry, str):
        return [entry]
    inner = entry.values() if isinstance(entry, dict) else entry
    return [page for item in inner for page in navigation(item)]


def test_every_page_is_in_the_navigation_once(site):
    project = tomllib.loads((ROOT / "docs" / "zensical.toml").read_text())["project"]
    pages = [*site.site_pages(ROOT).values(), *(f"reference/{name}.md" for name in site.API)]
    assert sorted(navigation(project["nav"])) == sorted([*pages, "reference/gin.md"])


def test_every_public_name_of_a_package_is_on_an_api_page(reference):
    shown = {
        id(v) for module in reference.API.values() for v in reference.public_names(module).values()
    }
    for found in pkgutil.walk_packages(supcon_tf.__path__, "supcon_tf."):
        if found.ispkg and found.name not in INTERNAL:
            package = importlib.import_module(found.name)
            missing = [
                n for n in getattr(package, "__all__", ()) if id(getattr(package, n)) not in shown
            ]
            assert not missing, found.name


def test_api_page_has_signatures_docstrings_and_links(reference):
    linked = reference.links("")
    page = reference.api_page("supcon_tf.losses", linked)
    entry = page.split("## supcon_loss ")[1].split("\n## ")[0]
    assert "    *,\n    temperature=0.1,\n    summation='outside',\n" in entry
    assert "- `temperature`: &gt; 0, divides the similarities." in entry
    assert ">>> from supcon_tf.losses import supcon_loss" in entry
    assert "[`supcon_loss`](losses.md#supcon_loss)" in page.split("## SupConLoss ")[1]
    assert linked("views.simclr") == "[`views.simclr`](views.md#simclr)"
    assert linked("keras.simclr") == "`keras.simclr`"
    search = reference.api_page("supcon_tf.search", linked)
    assert "search(embeddings, k=5)" in search.split("### Index.search")[1]


def test_every_setting_of_this_package_has_a_description(reference):
    missing = [
        f"{name}.{parameter.name}"
        for name in reference.configurables()
        for parameter in reference.settings(name)
        if not reference.description(name, parameter.name)
    ]
    # Those that LARS has from Keras.
    assert all(name.startswith("optimizers.LARS.") for name in missing), missing


def test_gin_page_has_the_settings_without_what_the_program_passes(reference):
    entries = dict(
        re.findall(r"^## (\S+) .*\n((?:(?!## ).*\n)*)", reference.gin_page("`{}`".format), re.M)
    )
    assert (
        "| `temperature` | `0.1` | &gt; 0, divides the similarities |"
        in entries["losses.SupConLoss"]
    )
    assert "| `crop` | `@views.random_resized_crop` |" in entries["views.Preprocessing"]
    assert "| `source` | required | labelled images |" in entries["finetune.run"]
    assert "`size_px`" not in entries["views.random_resized_crop"]
    assert "`learning_rate`" not in entries["optimizers.LARS"]
    assert "`run_dir`" not in entries["pretrain.run"]
    assert "`image`" not in entries["views.augmix"]
    assert "`cells`" not in entries["corruptions.tfds"]


def test_settings_in_the_commands_of_all_pages_are_on_the_gin_page(reference):
    known = {
        f"{name}.{parameter.name}"
        for name in reference.configurables()
        for parameter in reference.settings(name)
    }
    text = "".join(path.read_text() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
    used = set(re.findall(r"""--gin_param=["'](?:\w+/)*([\w.]+\.\w+) =""", text))
    assert len(used) > 20
    assert {name for name in used if not name.startswith("keras")} <= known


def test_sections_and_entries_of_a_docstring(docstrings):
    def documented():
        """One line.

        Second
        paragraph.

        Args:
          a, b: both: of them
            in two lines.
          c: other.

        Returns:
          a number.
        """

    found = docstrings.sections(documented)
    assert list(found) == ["", "Args", "Returns"]
    assert found[""] == "One line.\n\nSecond\nparagraph."
    assert docstrings.entries(found["Args"]) == [
        (["a", "b"], "both: of them in two lines."),
        (["c"], "other."),
    ]
    assert docstrings.argument(documented, "b", {}) == "both: of them in two lines."
    assert docstrings.argument(documented, "d", {}) == ""

    def other():
        """Other.

        Args:
          c: as in `documented`.
          b: as in `unknown`.
        """

    assert docstrings.argument(other, "c", {"documented": documented}) == "other."
    assert docstrings.argument(other, "b", {"documented": documented}) == "as in `unknown`."


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("one. Two.", "one"),
        ('number. "auto" is two.', "number"),
        ("0.97 and 1.5", "0.97 and 1.5"),
        ("s_i . s_j / t, see Sun et al. 2022. More.", "s_i . s_j / t, see Sun et al. 2022"),
        ("files root/a.npy and others.", "files root/a.npy and others"),
    ],
)
def test_first_sentence(docstrings, text, sentence):
    assert docstrings.first_sentence(text) == sentence


def test_only_backticks_of_a_docstring_have_a_meaning(docstrings):
    text = docstrings.escaped("> [N, *] `a_b*` x_i <y> |P|^2", "<{}>".format)
    assert text == r"&gt; \[N, \*\] <a_b*> x\_i &lt;y&gt; &#124;P&#124;^2"


def test_links_lead_to_pages_of_the_site_or_are_text(site):
    pages = site.site_pages(ROOT)
    linked = site.with_site_links(
        "[how](docs/runs.md#a) ![x](docs/images/a.png) [files](gin_configs) [b](#here) [c](https://d)",
        Path("README.md"),
        pages,
    )
    assert linked == "[how](runs.md#a) ![x](images/a.png) files [b](index.md#here) [c](https://d)"
    linked = site.with_site_links("[a](../README.md) [b](README.md)", Path("docs/runs.md"), pages)
    assert linked == "[a](index.md) [b](contents.md)"


def test_formulas_outside_of_code_are_mathml(site):
    text = site.with_mathml("`$a$` $b$ costs 3 $ or 4 $\n```\n$$c$$\n```\n$$d$$")
    assert text.startswith("`$a$` <math")
    assert "<mi>b</mi>" in text
    assert "costs 3 $ or 4 $\n```\n$$c$$\n```\n<div><math" in text


def test_site_has_no_broken_link_and_needs_no_other_host(site, tmp_path, capfd):
    pytest.importorskip("zensical", reason="the site needs pip install '.[docs]'")
    site.write_pages(tmp_path / "pages")
    assert site.build(tmp_path) == 0
    assert "No issues found" in capfd.readouterr().err
    for path in (tmp_path / "site").rglob("*.html"):
        html = path.read_text()
        loaded = r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=["']?(?:https?:)?//[^>]*"""
        assert not re.findall(loaded, html), path
        for target in re.findall(r"""(?:src|href)="(?!\w+:|#)([^"#?]+)""", html):
            assert path.name == "404.html" or (path.parent / target).exists(), (path, target)
    (tmp_path / "pages" / "runs.md").write_text("# Runs\n\n[broken](none.md)\n")
    assert site.build(tmp_path) == 1
