"""Read off a Dockerfile which other images its build takes something from.

Every spelling that BuildKit knows is seen: `FROM` with global ARGs and their defaults, `COPY
--from=`, `RUN --mount=…,from=…`, what `ONBUILD` hands down and the `syntax` directive; through
parser directives, continued lines, comments between them, and here-documents.  Names of stages are
no images.  What cannot be known without a build is a DockerfileError, never left out: a reference
that is missed is an image that is not rebuilt.

The grammar: https://docs.docker.com/reference/dockerfile/.  Nothing is read from disk here.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

PLATFORM = {
    f"{side}{part}": value
    for side in ("TARGET", "BUILD")
    for part, value in {
        "PLATFORM": "linux/amd64",
        "OS": "linux",
        "ARCH": "amd64",
        "VARIANT": "",
    }.items()
}
"""The global ARGs that exist without being declared, as on the workflow's runners."""

_WITH_DOCUMENTS = ("RUN", "COPY", "ADD", "ONBUILD")
_CONTEXT = re.compile(r"\s*#\s*context:\s*(\S+)\s*")
_LIKE_CONTEXT = re.compile(r"\s*#\s*context\s*:", re.IGNORECASE)
_BLANKS = re.compile(r"[\t\v\f\r ]+")
_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
_DOCUMENT = re.compile(r"""\d*<<(-?)(["']?)([^\s<"']+)\2""")
_VARIABLE = re.compile(r"\$(?:(?P<plain>\w+)|\{(?P<braced>\w+)(?:(?P<how>:?[-+?])(?P<word>.*))?\})")
_OF_NAMES = f"{string.ascii_letters}{string.digits}_"  # what names of variables consist of


class DockerfileError(Exception):
    """The Dockerfile cannot be read; the message says what to do, `line` where (from 1)."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Reference:
    """An image that a build takes something from.

    `text` is its reference with variables put in, `line` where the instruction begins, and
    `instruction` how it is used: FROM, COPY, ADD, RUN, ONBUILD or, for the directive, SYNTAX.
    """

    text: str
    line: int
    instruction: str


@dataclass(frozen=True)
class _Instruction:
    line: int
    name: str
    rest: str


def context(dockerfile: str) -> str:
    """Return the folder that a comment `# context: FOLDER` above the first instruction names.

    The folder is relative to the Dockerfile's own, and nothing when there is no such comment.
    Raise DockerfileError for what is nearly such a comment, or one further down: it would name no
    context, without a word.
    """
    found, is_above = "", True
    for number, line in enumerate(_lines(dockerfile), 1):
        is_above = is_above and (not line.strip() or line.lstrip().startswith("#"))
        exact = _CONTEXT.fullmatch(line)
        if exact and is_above and not found:
            found = exact[1]
        elif exact or (is_above and _LIKE_CONTEXT.match(line)):
            raise DockerfileError(
                number,
                f"{line.strip()!r} names no context: write # context: FOLDER, once, above the "
                f"first instruction",
            )
    return found


def _lines(dockerfile: str) -> list[str]:
    """Return the lines as BuildKit has them: a line feed alone ends one."""
    lines = dockerfile.removeprefix("\ufeff").removesuffix("\n").split("\n")
    return [line.removesuffix("\r") for line in lines]


def references(dockerfile: str) -> list[Reference]:
    """Return the images that a Dockerfile's build uses, in the order of their first use.

    `scratch` and stages are none.  Raise DockerfileError for what is no Dockerfile, and for a
    reference that only a build would know.
    """
    return list(dict.fromkeys(_read(dockerfile).found))


def base(dockerfile: str) -> str:
    """Return the reference that the image itself is based on, or nothing for `scratch`.

    That is what the last stage's FROM names, or the FROM of the stage that it names, and so on.
    Raise DockerfileError as `references` does.
    """
    return _read(dockerfile).base


def _read(dockerfile: str) -> _References:
    directives, lines = _directives(_lines(dockerfile))
    escape = directives.get("escape", "\\")
    if escape not in ("\\", "`"):
        raise DockerfileError(1, f"escape={escape} is neither \\ nor `: write one of them")
    read = _References(escape)
    if syntax := directives.get("syntax"):
        read.add(syntax, 1, "SYNTAX")
    instructions = list(_instructions(lines, escape))
    read.named = [name for one in instructions if one.name == "FROM" and (name := _stage(one))]
    for instruction in instructions:
        read.take(instruction)
    if not read.stages_began:
        raise DockerfileError(max(1, len(lines)), "there is no FROM: write what it builds on")
    return read


class _References:
    """What has been found while the instructions were read from the top."""

    def __init__(self, escape: str) -> None:
        self.escape = escape
        self.found: list[Reference] = []
        self.variables: dict[str, str | None] = dict(PLATFORM)
        self.stages: dict[str, str] = {}
        self.base = ""
        self.named: list[str] = []
        self.stages_began = False

    def add(self, text: str, line: int, instruction: str) -> None:
        self.found.append(Reference(text, line, instruction))

    def take(self, one: _Instruction) -> None:
        if one.name == "ARG" and not self.stages_began:
            for word in _words(one.rest, self.escape):
                name, given, default = word.partition("=")
                if given:
                    self.variables[name] = self._expanded(default)
                else:
                    self.variables.setdefault(name, None)
        elif one.name == "FROM":
            self._take_from(one)
        elif one.name in ("COPY", "ADD", "RUN"):
            self._take_flags(one, one.name)
        elif one.name == "ONBUILD":
            self._take_flags(_instruction(one.line, one.rest), "ONBUILD")

    def _take_from(self, one: _Instruction) -> None:
        self.stages_began = True
        words = _words(_flags(one.rest)[1], self.escape)
        if not words:
            raise DockerfileError(one.line, "FROM names no image: write one, or scratch")
        text = self._expanded(words[0])
        if not text:
            raise DockerfileError(
                one.line,
                f"FROM {words[0]} names what only a build would know: give each ARG in it a "
                f"default, above the first FROM",
            )
        if text.lower() in self.stages:
            self.base = self.stages[text.lower()]
        elif text == "scratch":
            self.base = ""
        else:
            self.base = text
            self.add(text, one.line, "FROM")
        if name := _stage(one):
            self.stages[name] = self.base

    def _take_flags(self, one: _Instruction, instruction: str) -> None:
        for flag in _flags(one.rest)[0]:
            name, _, value = flag.partition("=")
            if name == "--from" and one.name in ("COPY", "ADD"):
                self._take_source(value, one.line, instruction)
            elif name == "--mount" and one.name == "RUN":
                options = (option.strip().partition("=") for option in value.split(","))
                for key, _, source in options:
                    if key.lower() == "from":
                        self._take_source(source, one.line, instruction)

    def _take_source(self, text: str, line: int, instruction: str) -> None:
        if "$" in text:
            raise DockerfileError(
                line,
                f"from={text} is not expanded there: write FROM {text} AS NAME above, and "
                f"from=NAME here",
            )
        if text and not text.isdigit() and text.lower() not in self.named:
            self.add(text, line, instruction)

    def _expanded(self, word: str) -> str | None:
        """Return a word with its quotes taken off and the variables' values put in.

        None when it holds a variable without a value.
        """
        made = ""
        quote, at = "", 0
        while at < len(word):
            character = word[at]
            if character == self.escape and quote != "'" and at + 1 < len(word):
                made, at = made + word[at + 1], at + 2
            elif character in "\"'" and quote in ("", character):
                quote, at = ("" if quote else character), at + 1
            elif character == "$" and quote != "'":
                end = _end_of_variable(word, at)
                value = self._value(word[at:end])
                if value is None:
                    return None
                made, at = made + value, end
            else:
                made, at = made + character, at + 1
        return made

    def _value(self, text: str) -> str | None:
        found = _VARIABLE.fullmatch(text)
        if not found:
            return None
        value = self.variables.get(found["plain"] or found["braced"])
        how, word = found["how"] or "", found["word"] or ""
        is_set = bool(value) if how.startswith(":") else value is not None
        if how.endswith("-"):
            return value if is_set else self._expanded(word)
        if how.endswith("+"):
            return self._expanded(word) if is_set else ""
        return value if is_set or not how else None


def _end_of_variable(word: str, start: int) -> int:
    """Return where the variable that begins with the `$` at `start` ends."""
    if word[start + 1 : start + 2] != "{":
        return len(word) - len(word[start + 1 :].lstrip(_OF_NAMES))
    depth = 0
    for at in range(start + 1, len(word)):
        depth += {"{": 1, "}": -1}.get(word[at], 0)
        if not depth:
            return at + 1
    return len(word)


def _directives(lines: Sequence[str]) -> tuple[Mapping[str, str], Sequence[str]]:
    """Return the parser directives at the very top, and the lines with those emptied."""
    found: dict[str, str] = {}
    for number, line in enumerate(lines):
        directive = _DIRECTIVE.fullmatch(line.strip())
        if not directive or directive[1].lower() not in ("syntax", "escape", "check"):
            return found, [*[""] * number, *lines[number:]]
        found[directive[1].lower()] = directive[2]
    return found, [""] * len(lines)


def _instructions(lines: Sequence[str], escape: str) -> Iterator[_Instruction]:
    """Yield the instructions, each joined to one line, without comments and here-documents."""
    ends = re.compile(rf"(?<!{re.escape(escape)}){re.escape(escape)}[ \t]*$")
    numbered = iter(enumerate(lines, start=1))
    for number, line in numbered:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        joined, goes_on = ends.sub("", line), ends.search(line)
        while goes_on and (following := next(numbered, None)):
            if not following[1].strip() or following[1].lstrip().startswith("#"):
                continue
            joined, goes_on = joined + ends.sub("", following[1]), ends.search(following[1])
        one = _instruction(number, joined)
        if one.name in _WITH_DOCUMENTS:
            for word in _words(one.rest, escape):
                if document := _DOCUMENT.fullmatch(word):
                    _skip(numbered, document, number)
        yield one


def _instruction(line: int, text: str) -> _Instruction:
    name, *rest = _BLANKS.split(text.strip(), maxsplit=1)
    return _Instruction(line, name.upper(), "".join(rest))


def _skip(numbered: Iterator[tuple[int, str]], document: re.Match[str], begins: int) -> None:
    """Take a here-document off the lines, with its last."""
    for _, line in numbered:
        if (line.lstrip("\t") if document[1] else line) == document[3]:
            return
    raise DockerfileError(begins, f"<<{document[3]} never ends: close it with {document[3]} alone")


def _words(text: str, escape: str) -> list[str]:
    """Split at the blanks outside quotes and `${…}`; quotes stay."""
    found = [""]
    quote, depth, at = "", 0, 0
    while at < len(text):
        character = text[at]
        if character == escape and quote != "'":
            found[-1] += text[at : at + 2]
            at += 2
            continue
        if character in "\"'" and quote in ("", character):
            quote = "" if quote else character
        if depth or (character == "{" and found[-1].endswith("$")):
            depth += {"{": 1, "}": -1}.get(character, 0)
        if character.isspace() and not quote and not depth:
            found.append("")
        else:
            found[-1] += character
        at += 1
    return [word for word in found if word]


def _flags(text: str) -> tuple[list[str], str]:
    """Return the words that begin with `--`, as far as they are the first, and what follows.

    Quotes are taken off wherever they stand in such a word, and a backslash is what escapes,
    whatever the `escape` directive says: `extractBuilderFlags` of
    https://github.com/moby/buildkit/blob/master/frontend/dockerfile/parser/line_parsers.go
    """
    found: list[str] = []
    at = 0
    while True:
        at += len(text[at:]) - len(text[at:].lstrip())
        if not text.startswith("--", at):
            return found, text[at:]
        word, quote = "", ""
        while at < len(text) and (quote or not text[at].isspace()):
            character = text[at]
            if character == "\\" and at + 1 < len(text):
                at += 1
                word += text[at]
            elif character in "\"'" and quote in ("", character):
                quote = "" if quote else character
            else:
                word += character
            at += 1
        if word == "--":
            return found, text[at:]
        found.append(word)


def _stage(one: _Instruction) -> str:
    """Return the name that a FROM gives to its stage, in lower case, or nothing."""
    found = re.search(r"\s[Aa][Ss]\s+(\S+)$", one.rest)
    return found[1].lower() if found else ""
