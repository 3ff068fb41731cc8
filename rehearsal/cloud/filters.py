"""Filters and pages of Describe calls."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from rehearsal.cloud.errors import combination, invalid, not_modelled
from rehearsal.cloud.protocol import service_model

T = TypeVar("T")
Values = Iterable[str | int | bool | None]
# Filter name -> what an object has for it.
Extractors = Mapping[str, Callable[[T], Values]]


def pattern(text: str) -> re.Pattern[str]:
    r"""A filter value: ``*`` is any text, ``?`` any character, ``\`` escapes (EC2 User Guide, "Filter wildcards")."""
    parts = []
    characters = iter(text)
    for character in characters:
        if character == "\\":
            parts.append(re.escape(next(characters, "\\")))
        else:
            parts.append({"*": ".*", "?": "."}.get(character) or re.escape(character))
    return re.compile("".join(parts), re.DOTALL)


def matcher(values: Sequence[str]) -> Callable[[Values], bool]:
    """Whether at least one of an object's values equals one of the filter's values."""
    if not any(set(value) & set("*?\\") for value in values):
        plain = frozenset(values)
        return lambda found: any(text(item) in plain for item in found if item is not None)
    patterns = [pattern(value) for value in values]
    return lambda found: any(p.fullmatch(text(item)) for item in found if item is not None for p in patterns)


def text(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


@cache
def documented(action: str) -> frozenset[str]:
    """The filter names that the EC2 API Reference lists for ``action`` (taken from botocore's copy of it)."""
    operation = service_model().operation_model(action)
    for name in ("Filters", "Filter"):
        shape = operation.input_shape.members.get(name)
        if shape is not None:
            return frozenset(re.findall(r"<p> *<code>([^<]+)</code>", shape.documentation))
    return frozenset()


def refuse_filter(action: str, name: str) -> Exception:
    """The error for a filter that is not modelled: EC2 does not know it, or only the rehearsal does not."""
    if name in documented(action):
        return not_modelled(f"the filter '{name}' of {action}")
    return invalid(f"The filter '{name}' is invalid")


def select(
    action: str,
    objects: Iterable[T],
    filters: Sequence[Mapping[str, Any]],
    extractors: Extractors[T],
    tags: Callable[[T], Mapping[str, str]],
) -> list[T]:
    """The objects that pass all filters. An unknown filter is an error, also when there is no object to test."""
    tests: list[Callable[[T], bool]] = []
    for entry in filters:
        name, values = entry.get("Name"), entry.get("Values", [])
        if not name:
            raise invalid("The filter 'null' is invalid")
        test = matcher(values)
        if name.startswith("tag:"):
            tests.append(_tag_test(name[4:], test, tags))
        elif name == "tag-key":
            tests.append(lambda item, test=test: test(tags(item)))  # type: ignore[misc]
        elif name == "tag-value":
            tests.append(lambda item, test=test: test(tags(item).values()))  # type: ignore[misc]
        elif name in extractors:
            tests.append(lambda item, test=test, get=extractors[name]: test(get(item)))  # type: ignore[misc]
        else:
            raise refuse_filter(action, name)
    return [item for item in objects if all(test(item) for test in tests)]


def _tag_test(key: str, test: Callable[[Values], bool], tags: Callable[[T], Mapping[str, str]]) -> Callable[[T], bool]:
    def check(item: T) -> bool:
        found = tags(item)
        return key in found and test((found[key],))

    return check


def page(
    items: Sequence[T], params: Mapping[str, Any], *, ids: str | None = None, smallest: int = 5, largest: int = 1000
) -> tuple[Sequence[T], str | None]:
    """Cut one page; without MaxResults everything is one page.

    ``ids`` names the parameter that cannot be combined with MaxResults (EC2 API Reference, "Pagination").
    """
    limit = params.get("MaxResults")
    if limit is not None and ids and params.get(ids):
        raise combination(f"The parameter {ids} cannot be used with the parameter MaxResults")
    if limit is not None and not smallest <= limit <= largest:
        raise invalid(f"Value ( {limit} ) for parameter maxResults is invalid: {smallest} to {largest} are possible.")
    start = decode_token(params["NextToken"]) if params.get("NextToken") else 0
    if limit is None:
        return items[start:], None
    end = start + limit
    return items[start:end], encode_token(end) if end < len(items) else None


def encode_token(position: int) -> str:
    return base64.urlsafe_b64encode(f"rehearsal:{position}".encode()).decode()


def decode_token(token: str) -> int:
    try:
        word, _, position = base64.urlsafe_b64decode(token).decode().partition(":")
        if word == "rehearsal":
            return int(position)
    except (ValueError, binascii.Error):
        pass
    raise invalid(f"Unable to parse pagination token {token}")
