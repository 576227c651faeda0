"""A platform profile as the rest of the gateway knows it: what it can, and how it says an event. Pure: no IO."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from gateway.events import PREFIX, VERSION_SUFFIX, Origin, wants
from gateway.profiles.answers import Rule
from gateway.profiles.mapping import Body, MappingError, Text, Words, rendered, rendered_text

NATIVE: Final = "native"
_EVENTS: Final = "\N{REPLACEMENT CHARACTER}events\N{REPLACEMENT CHARACTER}"

Level = Literal["L1", "L2"]


@dataclass(frozen=True, slots=True)
class Message:
    """How the events of some types are said: where to, and in what words."""

    types: tuple[str, ...]
    to: Text
    body: Body


@dataclass(frozen=True, slots=True)
class Said:
    """One event in the platform's words: its id there, where it goes, and its JSON text."""

    name: str
    to: str
    text: str


@dataclass(frozen=True, slots=True)
class Profile:
    """One platform's way of speaking. `native` has no messages: its words are the events themselves.

    `batch` is None where each event goes alone; `rule` is None where nothing tells what the application did (L1).
    """

    name: str
    transport: Literal["http", "mqtt", "any"]
    level: Level
    messages: tuple[Message, ...] = ()
    words: Words = Words({})  # noqa: RUF009 - frozen
    parameters: tuple[str, ...] = ()
    id_form: Literal["uuid", "hex"] = "uuid"
    max_events: int = 100
    max_bytes: int = 64 * 1024
    probe: str = "/"
    batch: Message | None = None
    rule: Rule | None = None
    reply_topic: Text = ()
    reply_id: str = ""
    client: Text = ()

    @property
    def is_native(self) -> bool:
        """Are the words the events themselves?"""
        return self.name == NATIVE

    @property
    def lacks(self) -> tuple[str, ...]:
        """What it cannot do that `native` can: "batch", "ack", "birth", "state"."""
        if self.is_native:
            return ()
        flags = (("batch", self.batch is not None), ("ack", self.level == "L2"), ("birth", False), ("state", False))
        return tuple(name for name, has in flags if not has)

    def client_id(self, place: Place) -> str:
        """Return the MQTT client id that the platform demands; "" where it leaves that to us."""
        return rendered_text(self.client, place.values(), self.words)

    def said(self, text: str, place: Place, *, message: str = "") -> Said:
        """Say one event. Raises MappingError, or whatever an event that is none leads to."""
        event: dict[str, Any] = json.loads(text)
        noun = str(event["type"]).removeprefix(PREFIX).removesuffix(VERSION_SUFFIX)
        for one in self.messages:
            if wants(one.types, noun):
                break
        else:
            raise MappingError(f"the profile has no message for {noun}")
        name = str(event["id"]).replace("-", "") if self.id_form == "hex" else str(event["id"])
        values = {**event, **place.values(), "id": name, "noun": noun, "message": message}
        body = rendered(one.body, values, self.words)
        words = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        words.encode()  # half a surrogate pair can be in JSON and not on a wire
        return Said(name, rendered_text(one.to, values, self.words), words)

    def batch_to(self, place: Place) -> str:
        """Return where several events go in one message."""
        assert self.batch is not None  # noqa: S101 - whoever batches has looked
        return rendered_text(self.batch.to, place.values(), self.words)

    def together(self, said: list[Said], place: Place) -> tuple[str, str]:
        """Say several events in one message; return where it goes, and its text. Raises MappingError."""
        assert self.batch is not None  # noqa: S101 - whoever batches has looked
        values = {**place.values(), "events": _EVENTS}
        body = json.dumps(rendered(self.batch.body, values, self.words), ensure_ascii=False, separators=(",", ":"))
        texts = f"[{','.join(one.text for one in said)}]"
        return self.batch_to(place), body.replace(f'"{_EVENTS}"', texts, 1)


@dataclass(frozen=True, slots=True)
class Place:
    """Who speaks: the gateway, and the parameters that its configuration gives the profile."""

    origin: Origin
    parameters: Mapping[str, str]

    def values(self) -> dict[str, Any]:
        """Return what {gateway...} and {parameter...} stand for."""
        one = self.origin
        gateway = {"id": one.gateway, "org": one.org, "site": one.site}
        return {"gateway": gateway, "parameter": dict(self.parameters)}
