"""Which images a Dockerfile's build uses: `images/dockerfile.py`."""

from __future__ import annotations

import pytest

from images.dockerfile import DockerfileError, base, context, references

B = "ghcr.io/o/r/base"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FROM debian:13\n", ["debian:13"]),
        (f"FROM {B}:latest", [f"{B}:latest"]),
        (f"\ufefffrom {B}@sha256:0 as x\n", [f"{B}@sha256:0"]),
        (f"FROM --platform=$BUILDPLATFORM {B}\n", [B]),
        (f"ARG X={B}:latest\nFROM $X\n", [f"{B}:latest"]),
        (f"ARG X='{B}' Y=\nFROM ${{X}}${{Y}} AS one\n", [B]),
        ('ARG R=ghcr.io/o/r\nARG X="${R}/base"\nFROM ${X}\n', [B]),
        (f"ARG X\nFROM ${{X:-{B}}}\n", [B]),
        (f"ARG X=\nARG Y={B}\nFROM ${{X:-${{Y}}}}\n", [B]),
        ("ARG X=a\nFROM b${X:+-a}\n", ["b-a"]),
        ("ARG X=a\nFROM ${X?must be given}\n", ["a"]),
        ("ARG X=a\nARG X\nFROM ${X}\n", ["a"]),
        ("FROM b-${TARGETARCH}\n", ["b-amd64"]),
        (f"FROM scratch\nCOPY --chmod=0644 --from={B} /a /b\n", [B]),
        (f"FROM scratch\nADD --from={B} /a /b\n", [B]),
        (f"FROM scratch\nRUN --network=none --mount=type=bind,from={B},source=/a true\n", [B]),
        (f"FROM scratch\nRUN --mount=from={B} --mount=type=cache,target=/c true\n", [B]),
        (f'FROM scratch\nRUN --mount="type=bind,from={B}" true\n', [B]),
        (f'FROM scratch\nRUN --mount=type=bind,"from={B}",target=/x true\n', [B]),
        (f'FROM scratch\nRUN --mount=type=bind,fr"om"={B} true\n', [B]),
        (f'FROM scratch\nCOPY --"from"={B} / /x\n', [B]),
        (f"FROM scratch\nCOPY --from'='\\{B} / /x\n", [B]),
        ('FROM scratch\nCOPY --from=x/"base" / /x\n', ["x/base"]),
        (f"# escape=`\nFROM scratch\nCOPY --fr\\om={B} / /x\n", [B]),
        (f"FROM scratch\nCOPY\f--from={B} / /x\n", [B]),
        (f"FROM scratch\nCOPY\v--link\r--from={B} / /x\n", [B]),
        (f"FROM scratch\r\nCOPY -- --from={B} /x\r\n", []),
        (f"FROM scratch\nONBUILD COPY --from={B} /a /b\n", [B]),
        (f"FROM scratch\nRUN echo --from={B} --mount=from={B}\n", []),
        (f"# syntax={B}\nFROM scratch\n", [B]),
        (f"#\n# syntax={B}\nFROM scratch\n", []),
        (f"# FROM {B}\nFROM \\\n# a comment\n\n  --platform=linux/amd64 \\\n {B}\n", [B]),
        (f"# escape=`\nFROM `\n {B}\nRUN dir C:\\\nCOPY --from=x a b\n", [B, "x"]),
        ("FROM a\nRUN echo b\\\\\nCOPY --from=c d e\n", ["a", "c"]),
        (f"FROM scratch\nRUN <<EOF\nFROM {B}\nEOF\nCOPY --from=x a b\n", ["x"]),
        ("FROM scratch\nRUN { cat <<-'E' <<F\nFROM a\n\tE\nFROM b\nF\nCOPY --from=x a b\n", ["x"]),
        ('FROM scratch\nCOPY <<A <<"B" /etc/\nFROM a\nA\nFROM b\nB\nFROM c\n', ["c"]),
        ("FROM scratch\nRUN cat <<<EOF\nFROM c\n", ["c"]),
        ("FROM scratch\nLABEL a=<<EOF\nFROM c\n", ["c"]),
        (f"FROM {B} AS base\nFROM base\nCOPY --from=BASE a b\nCOPY --from=0 a b\n", [B]),
        ("FROM base\nFROM x AS base\n", ["base", "x"]),
        ("FROM base AS base\nFROM base\n", ["base"]),
        ("FROM a\nFROM b\nFROM a\n", ["a", "b"]),
        (f"FROM scratch\nARG X={B}\n", []),
    ],
)
def test_references(text: str, found: list[str]) -> None:
    """Each spelling that BuildKit takes is seen, and stages, scratch and documents are none."""
    assert list(dict.fromkeys(one.text for one in references(text))) == found


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("ARG X\n\nFROM ${X}\n", 3, "FROM ${X} names what only a build would know"),
        ("FROM $X\n", 1, "give each ARG in it a default, above the first FROM"),
        ("FROM a\nARG X=b\nFROM $X\n", 3, "FROM $X names"),
        ("ARG X=a\nFROM ${X%a}b\n", 2, "FROM ${X%a}b names"),
        ("ARG A\nARG B=${A}/b\nFROM $B\n", 3, "FROM $B names"),
        ("ARG A=\nFROM ${A:?no}\n", 2, "FROM ${A:?no} names"),
        ("FROM a\nCOPY --from=$X a b\n", 2, "from=$X is not expanded there: write FROM $X AS"),
        ("FROM a\nRUN \\\n --mount=from=${X} true\n", 2, "from=${X} is not expanded"),
        ("FROM a\nRUN <<EOF\ntrue\n", 2, "<<EOF never ends"),
        ("FROM --platform=a\n", 1, "FROM names no image"),
        ("# escape=x\nFROM a\n", 1, "escape=x is neither"),
        ("# nothing\n", 1, "there is no FROM"),
    ],
)
def test_what_only_a_build_would_know(text: str, line: int, said: str) -> None:
    """What cannot be read off the file is refused, with its line and what to do."""
    with pytest.raises(DockerfileError) as caught:
        references(text)
    assert caught.value.line == line
    assert said in str(caught.value)


def test_line_and_instruction() -> None:
    """A reference tells where its instruction begins, and how it is used."""
    text = "# syntax=s\n\nFROM a\nRUN \\\n --mount=from=b true\nONBUILD ADD --from=c d e\n"
    found = [(one.text, one.line, one.instruction) for one in references(text)]
    assert found == [("s", 1, "SYNTAX"), ("a", 3, "FROM"), ("b", 4, "RUN"), ("c", 6, "ONBUILD")]


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("FROM a\n", ""),
        ("# escape=`\n# What it is.\n\n# context: ..\nFROM a\n", ".."),
        ("#context: ../shared\nFROM a\n", "../shared"),
        ("\ufeff# context: ..\nFROM a\n", ".."),
        ("# the context: is said here\nFROM a\n", ""),
        ("FROM a\n# Context: why this is so\nRUN true\n", ""),
    ],
)
def test_context(text: str, folder: str) -> None:
    """A comment above the first instruction names the folder that the build sees."""
    assert context(text) == folder


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("FROM a\n# context: ..\n", 2),
        ("ARG V=1\n# context: ../..\nFROM a\n", 2),
        ("# Context: ..\nFROM a\n", 1),
        ("# context : ..\nFROM a\n", 1),
        ("# context: ../.. (all)\nFROM a\n", 1),
        ("# context: ..\n# context: ../..\nFROM a\n", 2),
    ],
)
def test_no_context(text: str, line: int) -> None:
    """What is nearly such a comment is refused, since the build would see another folder."""
    with pytest.raises(DockerfileError, match="names no context") as caught:
        context(text)
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FROM a\n", "a"),
        ("FROM a AS one\nFROM b\nCOPY --from=one x y\nCOPY --from=c x y\n", "b"),
        ("FROM a AS one\nFROM b AS two\nFROM One AS three\nFROM three\n", "a"),
        ("FROM a AS one\nFROM scratch\nCOPY --from=one x y\n", ""),
        ("FROM scratch AS one\nFROM one\n", ""),
        ("ARG A=a:1\nFROM b\nFROM ${A} AS last\n", "a:1"),
    ],
)
def test_base(text: str, found: str) -> None:
    """An image is based on what its last stage is, through the stages that this one names."""
    assert base(text) == found
