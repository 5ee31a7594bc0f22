"""mkdocs hooks: add the pages of the repository root, fill in the table of keys."""

import html
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

from dt_jax.config.keys import sections_of

_ROOT = Path(__file__).parents[1]
_ROOT_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
_PLACEHOLDER = "{{ configuration keys }}"


def on_files(files: Any, config: Any) -> None:
    """Add the pages of the repository root to the site."""
    for name, page in _ROOT_PAGES.items():
        content = (_ROOT / name).read_text()
        files.append(File.generated(config, page, content=content))


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Fill in the table of keys and rewrite links between files of the repository."""
    site_folder = posixpath.dirname(page.file.src_uri)
    folder = "" if page.file.generated_by else posixpath.join("docs", site_folder)

    def link(match: re.Match) -> str:
        image, text, path, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(folder, path))
        if path in _ROOT_PAGES or path.startswith("docs/"):
            path = _ROOT_PAGES.get(path, path.removeprefix("docs/"))
            path = posixpath.relpath(path, site_folder or ".")
        elif config.repo_url:
            path = f"{config.repo_url}/blob/main/{path}"
        else:  # the repository is not published: no target
            return text
        return f"{image}[{text}]({path}{anchor or ''})"

    if _PLACEHOLDER in markdown:
        markdown = markdown.replace(_PLACEHOLDER, key_tables())
    return re.sub(
        r"(!?)\[([^\]]+)\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)",
        link,
        markdown,
    )


def key_tables() -> str:
    """Return a Markdown table for each section of configuration keys."""
    lines: list[str] = []
    for section, keys in sections_of("dt").items():
        lines += [f"### {section}", ""]
        lines += ["| key | default | resume | CORL | meaning |", "|---" * 5 + "|"]
        for key in keys:
            resume, corl = ("✓" if mark else "" for mark in (key.resumable, key.corl))
            cells = f"`{key.name}`", f"`{key.default!r}`", resume, corl
            lines.append(f"| {' | '.join(cells)} | {_as_markdown(key.comment)} |")
        lines.append("")
    return "\n".join(lines).strip()


def _as_markdown(text: str) -> str:
    """Return a comment as Markdown: values, keys and paths as code."""
    code = r"\"[^\"]+\"|[\w./<>-]*[_<][\w./<>-]*[\w>]"
    pieces = re.split(f"({code})", text)
    return "".join(
        f"`{piece}`" if i % 2 else html.escape(piece, quote=False)
        for i, piece in enumerate(pieces)
    ).replace("|", r"\|")
