"""What is public, and what its docstrings say: read by introspection."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
import textwrap
from typing import Any

import hsunmix

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example")
# One axis: a letter, a number, "..." or simple arithmetic of these. "(Ho et al., 2020)" is no shape.
AXIS = r"(?:\.\.\.|(?:\d+|[A-Za-z][0-9]?'?)(?![\w.])(?: ?[*+/-] ?\w+| \([A-Z] - 1\) / 2)*|size)"
SHAPE = re.compile(rf"\((?:{AXIS},|{AXIS}(?:, {AXIS})+|\.\.\.|)\)|\b[Ss]calars?\b")
ARRAY = re.compile(r"\b(Tensor|ndarray|Array)\b")


def packages():
    """`hsunmix` and every subpackage with an `__all__`."""
    names = [info.name for info in pkgutil.iter_modules(hsunmix.__path__) if info.ispkg]
    found = [hsunmix, *(importlib.import_module(f"hsunmix.{name}") for name in names)]
    return [package for package in found if hasattr(package, "__all__")]


def modules():
    """Every module of the package; `__main__` would run."""
    names = [info.name for info in pkgutil.walk_packages(hsunmix.__path__, "hsunmix.")]
    return sorted(name for name in names if not name.endswith("__main__"))


def objects():
    """(name, object) of everything in an `__all__`, once, by the first name under which it is found."""
    seen = {}
    for package in packages():
        for name in package.__all__:
            thing = getattr(package, name)
            if id(thing) not in seen:
                seen[id(thing)] = (f"{package.__name__}.{name}", thing)
    return list(seen.values())


def callables():
    """(name, function) of all public functions, methods and `__call__`s that hsunmix itself defines."""
    found = {}
    for name, thing in objects():
        if inspect.isfunction(thing):
            found[name] = inspect.unwrap(thing)
        elif inspect.isclass(thing):
            for key, member in vars(thing).items():
                function = getattr(member, "__func__", member)  # of class and static methods
                function = inspect.unwrap(function) if inspect.isfunction(function) else function
                public = not key.startswith("_") or key == "__call__"
                if public and inspect.isfunction(function) and function.__module__.startswith("hsunmix"):
                    found[f"{name}.{key}"] = function
    return found


def properties():
    """(name, function) of all public properties, cached ones too."""
    found = {}
    for name, thing in objects():
        if inspect.isclass(thing):
            for key, member in vars(thing).items():
                getter = getattr(member, "fget", None) or getattr(member, "func", None)
                if not key.startswith("_") and inspect.isfunction(getter):
                    found[f"{name}.{key}"] = getter
    return found


def classes():
    """name -> public class."""
    return {name: thing for name, thing in objects() if inspect.isclass(thing)}


def sections(documentation):
    """Text by section; "" holds what comes before the first one."""
    parts, current = {"": []}, ""
    for line in inspect.cleandoc(documentation or "").splitlines():
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            current = line[:-1]
            parts[current] = []
        elif current and line and not line.startswith(" "):  # ordinary text again
            current = ""
            parts[current].append(line)
        else:
            parts[current].append(line)
    return {name: textwrap.dedent("\n".join(lines)).strip("\n") for name, lines in parts.items()}


def entries(section):
    """name -> description of an `Args` or `Attributes` section."""
    found, names = {}, []
    for line in section.splitlines():
        match = re.match(r"(\*{0,2}\w+(?:, \*{0,2}\w+)*):\s?(.*)", line)
        if match:
            names = [name.strip("* ") for name in match[1].split(",")]
            found.update(dict.fromkeys(names, match[2]))
        elif names:
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
    return found


def parameters(function):
    """Those that a caller gives."""
    return [p for p in inspect.signature(function).parameters.values() if p.name not in ("self", "cls")]


def is_array(annotation):
    """Is it annotated as an array or tensor?"""
    return bool(ARRAY.search(str(annotation))) and "Callable" not in str(annotation)


def takes_array(parameter):
    """Does a parameter take an array? One of any type is taken for one, but for those that are no data."""
    anything = parameter.annotation in (Any, "Any") and parameter.kind is not parameter.VAR_KEYWORD
    return is_array(parameter.annotation) or (anything and parameter.name not in ("pipe", "shared", "callback"))


def returns_something(function):
    annotation = inspect.signature(function).return_annotation
    return annotation not in (None, "None", "NoReturn", inspect.Signature.empty)


def own_fields(cls):
    """Annotated fields of a dataclass that hsunmix itself declares, without private ones."""
    own = inspect.get_annotations(cls)
    return [field for field in dataclasses.fields(cls) if field.name in own and not field.name.startswith("_")]
