"""Every public name says what it takes and gives, with shapes; every example in a docstring runs."""

import ast
import dataclasses
import doctest
import importlib
import inspect

import pytest

from . import public

CALLABLES, PROPERTIES, CLASSES = public.callables(), public.properties(), public.classes()


def cases(found):
    return [pytest.param(name, thing, id=name.removeprefix("hsunmix.")) for name, thing in found.items()]


def problems_of_function(name, function):
    """What is missing in the docstring of a function, in words."""
    text = public.sections(function.__doc__)
    if not text[""].strip():
        return [f"{name} has no docstring"]
    found = []
    described = public.entries(text.get("Args", ""))
    for parameter in public.parameters(function):
        if not described.get(parameter.name, "").strip():
            found.append(f"{name}: `{parameter.name}` is not in Args")
        elif public.takes_array(parameter) and not public.SHAPE.search(described[parameter.name]):
            found.append(f"{name}: `{parameter.name}` is an array without shape: {described[parameter.name]}")
    signature = inspect.signature(function)
    known = {parameter.name for parameter in signature.parameters.values()}
    found += [f"{name}: `{other}` in Args is no parameter" for other in described if other not in known]
    returned = text.get("Returns", "") or text.get("Yields", "")
    if public.returns_something(function) and not returned.strip():
        found.append(f"{name}: no Returns")
    elif public.is_array(signature.return_annotation) and not public.SHAPE.search(returned):
        found.append(f"{name}: Returns an array without shape: {returned}")
    return found


@pytest.mark.parametrize("name,function", cases(CALLABLES))
def test_function_describes_its_arguments_and_results(name, function):
    assert problems_of_function(name, function) == []


@pytest.mark.parametrize("name,getter", cases(PROPERTIES))
def test_property_is_described(name, getter):
    assert (getter.__doc__ or "").strip(), f"{name} has no docstring"
    if public.is_array(inspect.signature(getter).return_annotation):
        assert public.SHAPE.search(getter.__doc__), f"{name} is an array without shape"


@pytest.mark.parametrize("name,cls", cases(CLASSES))
def test_class_describes_its_fields_or_its_constructor(name, cls):
    text = public.sections(cls.__doc__)
    assert text[""].strip(), f"{name} has no docstring"
    if dataclasses.is_dataclass(cls):
        described = public.entries(text.get("Attributes", "")) | public.entries(text.get("Args", ""))
        fields = public.own_fields(cls)
        assert {field.name for field in fields} <= set(described), name
        for field in fields:
            if public.is_array(field.type):
                assert public.SHAPE.search(described[field.name]), f"{name}.{field.name} is an array without shape"
        return
    if "__init__" in vars(cls) and not getattr(cls, "_is_protocol", False):
        described = public.entries(text.get("Args", ""))
        parameters = public.parameters(cls.__init__)
        assert set(described) == {parameter.name for parameter in parameters}, name
        for parameter in filter(public.takes_array, parameters):
            assert public.SHAPE.search(described[parameter.name]), f"{name}: `{parameter.name}` has no shape"


def explained_constants(module):
    """Names at the top of a module that a string below or a comment beside or above explains."""
    source = inspect.getsource(module)
    lines, body = source.splitlines(), ast.parse(source).body
    for node, after in zip(body, [*body[1:], None]):
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            string = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if string or "  # " in lines[node.lineno - 1] or lines[node.lineno - 2].startswith("# "):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


def test_constants_are_explained():
    """A constant has no docstring of its own."""
    explained = {
        (name.split(".")[1], constant)
        for name in public.modules()
        for constant in explained_constants(importlib.import_module(name))
    }
    constants = [name for name, thing in public.objects() if not callable(thing)]
    assert len(constants) > 5
    assert [name for name in constants if tuple(name.split(".")[1:]) not in explained] == []


EXAMPLES = [
    pytest.param(example, id=example.name.removeprefix("hsunmix."))
    for name in public.modules()
    for example in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name))
    if example.examples
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_in_docstring_runs(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
    assert not report, "".join(report)


def test_there_are_examples_for_the_pipeline():
    assert any("SemiBlindUnmixingPipeline" in str(case.id) for case in EXAMPLES) and len(EXAMPLES) >= 5
