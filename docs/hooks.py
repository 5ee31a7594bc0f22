"""mkdocs hooks: add the pages of the repository root, fill in the table of keys."""

import ast
import html
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mkdocs.structure.files import File

from dt_jax.training.resume import MAY_CHANGE

_ROOT = Path(__file__).parents[1]
_ROOT_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")  # in lower case
_PLACEHOLDER = "{{ configuration keys }}"


class Key(NamedTuple):
    """A configuration key.

    Attributes:
      group: the heading of its table.
      name: as in the configuration.
      default: as Python source.
      comment: what the key means.
      may_change: whether a resumed run may have another value.
    """

    group: str
    name: str
    default: str
    comment: str
    may_change: bool


def on_files(files: Any, config: Any) -> None:
    """Add the pages of the repository root to the site."""
    for name in _ROOT_PAGES:
        content = (_ROOT / name).read_text()
        files.append(File.generated(config, name.lower(), content=content))


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Fill in the table of keys and rewrite links between files of the repository."""
    folder = "" if page.file.generated_by else "docs"

    def link(match: re.Match) -> str:
        image, text, path, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(folder, path))
        if path in _ROOT_PAGES:
            path = path.lower()
        elif path.startswith("docs/"):
            path = path.removeprefix("docs/")
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
    """Return a Markdown table for each group of keys."""
    lines, group = [], None
    for key in declared_keys():
        if key.group != group:
            group = key.group
            lines += ["", f"### {group}", ""]
            lines += ["| key | default | resume | meaning |", "|---|---|---|---|"]
        mark = "✓" if key.may_change else ""
        comment = _as_markdown(key.comment)
        lines.append(f"| `{key.name}` | `{key.default}` | {mark} | {comment} |")
    return "\n".join(lines).strip()


def declared_keys() -> Iterator[Key]:
    """Yield the keys that configs/default.py declares, in order.

    A blank line starts a new group. The comment above the first key of a group begins
    with the group's title and a full stop.
    """
    source = (_ROOT / "configs/default.py").read_text()
    lines, group = source.splitlines(), ""
    for node in ast.walk(ast.parse(source)):
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if not isinstance(target, ast.Attribute):
            continue
        above = _comment_above(lines, node.lineno - 1)
        beside = lines[node.end_lineno - 1].partition("  # ")[2]
        comment = " ".join(above)
        if not lines[node.lineno - 2 - len(above)].strip():
            group, _, comment = comment.partition(".")
        default = ast.get_source_segment(source, node.value)
        comment = f"{comment} {beside}".strip()
        yield Key(group, target.attr, default, comment, target.attr in MAY_CHANGE)


def _comment_above(lines: list[str], i: int) -> list[str]:
    """Return the lines of the comment that ends above line `i`."""
    start = i
    while lines[start - 1].strip().startswith("#"):
        start -= 1
    return [line.strip().removeprefix("#").strip() for line in lines[start:i]]


def _as_markdown(text: str) -> str:
    """Return a comment as Markdown: values, keys and paths as code."""
    code = r"\"[^\"]+\"|[\w./<>-]*[_<][\w./<>-]*[\w>]"
    pieces = re.split(f"({code})", text)
    return "".join(
        f"`{piece}`" if i % 2 else html.escape(piece, quote=False)
        for i, piece in enumerate(pieces)
    ).replace("|", r"\|")
