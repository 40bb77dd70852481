"""The page of the Python API, from the docstrings of what the package offers."""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import curate
from docs.generators.markdown import paragraphs

HEAD = """# Python

`import curate` costs no PyTorch: a name is loaded when it is first used. All names below are public; what else lies in
the package may change without notice, see [Versions](../versions.md).
"""

GROUPS = {
    "Runs, copies, backbones, trainings": ("curate.api",),
    "Finished tables": ("curate.engine.table", "curate.engine.finished", "curate.engine.figures"),
    "Recipes and stages of your own": (
        "curate.recipe",
        "curate.engine.pipeline",
        "curate.engine.stage",
        "curate.engine.cost",
        "curate.stages.images.pictures",
    ),
}
"""By heading: modules that the names come from. The last group also has what is in none."""


def python_page() -> str:
    """Every public name with its signature and docstring."""
    parts = [HEAD]
    for title, names in _grouped().items():
        parts.append(f"## {title}")
        parts += [_entry(name, getattr(curate, name)) for name in names]
    return "\n\n".join(parts)


def _grouped() -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {title: [] for title in GROUPS}
    for name in curate.__all__:
        home = getattr(curate, name).__module__
        title = next((title for title, modules in GROUPS.items() if home in modules), [*GROUPS][-1])
        grouped[title].append(name)
    for names in grouped.values():
        names.sort(key=lambda name: (inspect.isclass(getattr(curate, name)), name.lower()))
    return grouped


def _entry(name: str, what: Any) -> str:
    if not inspect.isclass(what):
        return f"### curate.{name}\n\n{_signature(name, what)}\n\n{paragraphs(inspect.getdoc(what))}"
    parts = [f"### curate.{name}", paragraphs(_own_doc(what))]
    fields = [f"- `{field}`: {doc}" for field, doc in _fields(what)]
    if fields:
        parts.append("\n".join(fields))
    for method, found in _methods(what):
        parts.append(f"#### {name}.{method}\n\n{_signature(method, found)}\n\n{paragraphs(_doc(found))}")
    return "\n\n".join(part for part in parts if part)


def _own_doc(what: type) -> str:
    """The docstring of a class; that of a dataclass without one is its signature, which says nothing."""
    return what.__doc__ or ""


def _signature(name: str, what: Any) -> str:
    return f"```python\n{name}{_written(what)}\n```"


def _written(what: Any) -> str:
    """The signature as the source has it; of a property its type."""
    code: Any = what.fget if isinstance(what, property) else what
    source = textwrap.dedent(inspect.getsource(code))
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    returns = ast.unparse(node.returns).replace("'", "") if node.returns else ""
    if isinstance(what, property):
        return f": {returns}"
    node.args.args = [one for one in node.args.args if one.arg not in {"self", "cls"}]
    arguments = ast.unparse(node.args).replace("'", "")
    return f"({arguments}) -> {returns}" if returns else f"({arguments})"


def _fields(what: type) -> Iterator[tuple[str, str]]:
    """Annotated fields with the docstring below each."""
    body = ast.parse(textwrap.dedent(inspect.getsource(what))).body[0]
    assert isinstance(body, ast.ClassDef)
    for node, after in zip(body.body, [*body.body[1:], None], strict=True):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        told = after.value if isinstance(after, ast.Expr) else None
        if node.target.id.startswith("_") or not isinstance(told, ast.Constant):
            continue
        yield node.target.id, " ".join(str(told.value).split())


def _methods(what: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that the class itself defines and documents."""
    for name, found in vars(what).items():
        plain = found.__func__ if isinstance(found, classmethod | staticmethod) else found
        if name.startswith(("_", "model_")) or not (inspect.isfunction(plain) or isinstance(plain, property)):
            continue
        if _doc(plain) and not (dataclasses.is_dataclass(what) and name in {"__init__"}):
            yield name, plain


def _doc(what: Any) -> str:
    return inspect.getdoc(what.fget if isinstance(what, property) else what) or ""
