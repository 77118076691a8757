"""JSON schemas of Pydantic classes, TypedDicts and functions, in the form that LangChain sends to providers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, NamedTuple, TypeGuard, Union, get_args, get_origin, get_type_hints

from recorder.errors import ConfigError

#: Stands for a default that is not given.
_NO_DEFAULT: Any = inspect.Parameter.empty
#: Parameters that LangChain passes to a tool itself. The model does not see them.
_NOT_FOR_THE_MODEL = ("run_manager", "callbacks")
#: The names of LangChain's classes that mark other parameters which the model does not see.
_INJECTED = frozenset(("InjectedToolArg", "_DirectlyInjectedToolArg"))
#: How to write the types, for error messages.
_HOW = "use types that JSON has: str, int, float, bool, list, dict, Literal, a Pydantic class or a TypedDict"


class _Field(NamedTuple):
    """One property of a schema."""

    annotation: Any
    description: str
    default: Any = _NO_DEFAULT
    is_required: bool = True


def is_pydantic_class(thing: Any) -> TypeGuard[type]:
    """Whether this is a class of Pydantic 2."""
    return (
        isinstance(thing, type) and hasattr(thing, "model_json_schema") and hasattr(thing, "model_validate")
    )


def is_typed_dict(thing: Any) -> bool:
    """Whether this is a TypedDict, of `typing` or of `typing_extensions`."""
    from typing_extensions import is_typeddict

    return is_typeddict(thing)


def class_schema(model: Any) -> dict[str, Any]:
    """The schema of a Pydantic class, with its title and its description. References are replaced by what they name.

    Raises `ConfigError` if a field has a type without a JSON schema.
    """
    return _inlined(_made(model.__name__, model.model_json_schema))


def typed_dict_schema(typed_dict: Any) -> dict[str, Any]:
    """The schema of a TypedDict. `Annotated[str, ..., "text"]` describes a key, as in LangChain.

    A value in place of `...` is the default. Raises `ConfigError` if a key has a type without a JSON schema.
    """
    return _schema_of(typed_dict.__name__, lambda: _rebuilt_dict(typed_dict, ()))


def function_schema(function: Callable[..., Any]) -> dict[str, Any]:
    """The schema of a function's parameters. The docstring describes the function, and its `Args` the parameters.

    `*args` and `**kwargs` are left out. Raises `ConfigError` if a parameter has a type without a JSON schema.
    """
    name = function.__name__
    return _schema_of(name, lambda: _typed_dict(name, *_parts_of_function(function)))


def strict_schema(schema: Any) -> Any:
    """The schema as OpenAI's strict mode requires it: all properties are required, and there are no others."""
    if not isinstance(schema, Mapping):
        return schema
    found = {key: _strict_part(key, value) for key, value in schema.items()}
    properties = found.get("properties")
    if properties:
        found["required"] = list(properties)
    if "required" in found or properties == {} or "additionalProperties" in found:
        found["additionalProperties"] = False
    return found


def without_titles(schema: Mapping[str, Any], *, above: str = "") -> dict[str, Any]:
    """The schema without the titles that Pydantic adds. A property with the name `title` stays."""
    return {
        key: without_titles(value, above=key) if isinstance(value, Mapping) else value
        for key, value in schema.items()
        if key != "title" or (above == "properties" and isinstance(value, Mapping))
    }


def _strict_part(key: str, value: Any) -> Any:
    if key in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
        return {name: strict_schema(each) for name, each in value.items()}
    if key in ("anyOf", "allOf"):
        return [strict_schema(each) for each in value]
    return strict_schema(value) if key == "items" else value


# -- functions and TypedDicts -----------------------------------------------------------------------------------


def _schema_of(name: str, typed_dict: Callable[[], Any]) -> dict[str, Any]:
    from pydantic import TypeAdapter

    return _inlined(_made(name, lambda: TypeAdapter(typed_dict()).json_schema()))


def _made(name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` returns. Raises `ConfigError` in place of Pydantic's errors, and of errors in annotations."""
    from pydantic.errors import PydanticUserError

    try:
        return make()
    except ConfigError:
        raise
    except (PydanticUserError, NameError, TypeError, ValueError, AttributeError, SyntaxError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{name} has no JSON schema: {reason}; {_HOW}") from error


def _typed_dict(name: str, description: str, fields: Mapping[str, _Field]) -> Any:
    """A new TypedDict. Before Python 3.12, Pydantic reads only those of `typing_extensions`."""
    from typing import NotRequired

    from typing_extensions import TypedDict

    types = {key: _annotated(field) for key, field in fields.items()}
    keys = {key: types[key] if fields[key].is_required else NotRequired[types[key]] for key in types}
    made = TypedDict(name, keys)  # type: ignore[misc]
    made.__doc__ = description or None
    return made


def _annotated(field: _Field) -> Any:
    """The type of a field with its description and its default."""
    from pydantic import Field

    about: dict[str, Any] = {"description": field.description} if field.description else {}
    if field.default is not _NO_DEFAULT:
        about["json_schema_extra"] = _default_of(field.default)
    return Annotated[field.annotation, Field(**about)] if about else field.annotation


def _default_of(value: Any) -> dict[str, Any]:
    """The key `default` of a schema; without it, if JSON has no such value."""
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        return {"default": to_jsonable_python(value)}
    except PydanticSerializationError:
        return {}


def _parts_of_function(function: Callable[..., Any]) -> tuple[str, dict[str, _Field]]:
    """The description of a function, and its parameters."""
    hints = get_type_hints(function, include_extras=True)
    description, texts = _docstring(function)
    fields = {}
    for name, default in _parameters(function):
        annotation = _rebuilt(hints.get(name, Any), ())
        if not _is_injected(annotation):
            text = texts.get(name) or next(_texts(annotation), "")
            fields[name] = _Field(annotation, text, default, default is _NO_DEFAULT)
    return description, fields


def _parameters(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """The names and the defaults of the parameters that a model can pass by name."""
    is_method = "." in getattr(function, "__qualname__", "")
    for number, (name, each) in enumerate(inspect.signature(function).parameters.items()):
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) or name in _NOT_FOR_THE_MODEL:
            continue
        if not (number == 0 and is_method and name in ("self", "cls")):
            yield name, each.default


def _is_injected(annotation: Any) -> bool:
    marks = (annotation, get_origin(annotation), *_metadata(annotation))
    kinds = (each if isinstance(each, type) else type(each) for each in marks)
    return any(not _INJECTED.isdisjoint(base.__name__ for base in kind.__mro__) for kind in kinds)


def _rebuilt_dict(typed_dict: Any, around: tuple[Any, ...]) -> Any:
    """The same TypedDict for Pydantic. `around` are those in which it stands."""
    if typed_dict in around:
        raise ConfigError(f"{typed_dict.__name__} refers to itself; pass a Pydantic class, which may do that")
    description, texts = _docstring(typed_dict)
    fields = {
        name: _field_of_key(typed_dict, name, hint, texts.get(name), (*around, typed_dict))
        for name, hint in get_type_hints(typed_dict, include_extras=True).items()
    }
    return _typed_dict(typed_dict.__name__, description, fields)


def _field_of_key(typed_dict: Any, name: str, hint: Any, text: str | None, around: tuple[Any, ...]) -> _Field:
    is_required = name in typed_dict.__required_keys__
    while (marker := getattr(get_origin(hint), "_name", None)) in ("Required", "NotRequired", "ReadOnly"):
        is_required = marker == "Required" or (marker == "ReadOnly" and is_required)
        (hint,) = get_args(hint)
    marks, default = _metadata(hint), _NO_DEFAULT
    if len(marks) > 1 and isinstance(marks[1], str):  # LangChain's form: the default, then the description
        default, hint = marks[0] if marks[0] is not ... else _NO_DEFAULT, get_args(hint)[0]
        text = text or marks[1]
    annotation = _rebuilt(hint, around)
    text = text or next(_texts(annotation), "")
    return _Field(annotation, text, default, is_required and default is _NO_DEFAULT)


def _rebuilt(annotation: Any, around: tuple[Any, ...]) -> Any:
    """The annotation with TypedDicts that Pydantic can read."""
    if is_typed_dict(annotation):
        return _rebuilt_dict(annotation, around)
    origin, args = get_origin(annotation), get_args(annotation)
    if metadata := _metadata(annotation):
        return Annotated[(_rebuilt(args[0], around), *metadata)]
    rebuilt = tuple(_rebuilt(each, around) for each in args)
    if all(new is old for new, old in zip(rebuilt, args, strict=True)):
        return annotation
    return Union[rebuilt] if origin in (Union, UnionType) else origin[rebuilt]  # noqa: UP007


def _metadata(annotation: Any) -> tuple[Any, ...]:
    """The metadata of `Annotated[type, metadata, ...]`."""
    return getattr(annotation, "__metadata__", ())


def _texts(annotation: Any) -> Iterator[str]:
    """The texts in the metadata of an annotation. The first one describes a parameter."""
    return (each for each in _metadata(annotation) if isinstance(each, str))


def _docstring(thing: Any) -> tuple[str, dict[str, str]]:
    """The description in a docstring, and the description of each parameter; in Google's, NumPy's or Sphinx's style."""
    import docstring_parser

    # `inspect.getdoc` would find the docstring of `dict` for a TypedDict without one.
    text = inspect.cleandoc(thing.__doc__ or "")
    try:
        parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:
        return text, {}
    texts = {each.arg_name: " ".join((each.description or "").split()) for each in parsed.params}
    return " ".join((parsed.description or "").split("\n\n")).strip(), texts


# -- references -------------------------------------------------------------------------------------------------


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without `$ref`. A type that refers to itself stays a reference, and the schema keeps `$defs`."""
    definitions = schema.get("$defs", {})
    kept: set[str] = set()

    def inline(value: Any, around: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [inline(each, around) for each in value]
        if not isinstance(value, dict):
            return value
        name = str(value.get("$ref", "")).removeprefix("#/$defs/")
        if name not in definitions:
            return {key: inline(each, around) for key, each in value.items()}
        if name in around:
            kept.add(name)
            return value
        rest = {key: each for key, each in value.items() if key != "$ref"}
        return {**inline(definitions[name], (*around, name)), **inline(rest, around)}

    found: dict[str, Any] = inline({key: schema[key] for key in schema if key != "$defs"}, ())
    # A kept definition may refer to others, so all of them stay.
    return {**found, "$defs": definitions} if kept else found
