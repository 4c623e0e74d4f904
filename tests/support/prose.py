"""Count the words and forms that plain technical English avoids.

`python -m tests.support.prose [PATH…]` names each line. Prose is: docstrings and comments of Python;
comments, COMMENT ON and error messages of SQL; the text of Markdown outside code blocks.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.migrator import ROOT

PATTERNS = {
    "who": re.compile(r"\b(who|whoever|whom|whomever|whosoever)\b", re.IGNORECASE),
    "of it": re.compile(r"\bof (it|them|what)\b", re.IGNORECASE),
    "tell": re.compile(r"\b(tell|tells|told|telling)\b", re.IGNORECASE),
    "nobody": re.compile(r"\b(nobody|somebody)\b", re.IGNORECASE),
}
# A function's docstring opens with a verb. A property or a fixture may be a noun phrase.
NOUN_PHRASE = re.compile(
    r"(The|A|An|This|That|These|Its?|Each|Every|All|Any|One|Two|No|None|Not|Nothing|So|As|With|Without|From|In|On|Of|At|For"
    r"|If|When|While|Until|Same|Such|Only|Both|True|False|Who|How|Why|There)\b"
)
NOUNS_ALLOWED = {"property", "cached_property", "fixture"}
QUESTION = re.compile(r"(What|Whether|Where|Who|Whose|Whoever|Whatever)\b")
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
# A quoted name, a column or a file is no prose.
CODE = re.compile(r"``.*?``|`[^`]*`|https?://\S+")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of prose."""

    path: Path
    line: int
    text: str
    docstring: bool = False
    of_function: bool = False


def read_python(path: Path) -> Iterator[Passage]:
    """Yield the docstrings and comments of a module."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield Passage(path, node.body[0].lineno, text, docstring=True, of_function=_takes_verb(node))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Passage(path, token.start[0], re.sub(r"(noqa|type: ignore)\S*|^#+", "", token.string))


def _takes_verb(node: ast.AST) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    decorators = {
        re.split(r"[.(]", ast.unparse(decorator).removeprefix("pytest."))[0] for decorator in node.decorator_list
    }
    return not decorators & NOUNS_ALLOWED and not node.name.startswith("test_")


def read_sql(path: Path) -> Iterator[Passage]:
    """Yield the comments, descriptions and messages of an SQL file."""
    in_description = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        in_description = in_description or line.lower().startswith("comment on ")
        code, dashes, comment = line.partition("--")
        if dashes:
            yield Passage(path, number, comment)
        elif in_description or "raise exception" in code or "message =" in code:
            yield from (Passage(path, number, text) for text in re.findall(r"'((?:[^']|'')*)'", code))
        in_description = in_description and not line.rstrip().endswith(";")


def read_markdown(path: Path) -> Iterator[Passage]:
    """Yield the lines of a document outside code blocks."""
    in_code = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code:
            yield Passage(path, number, line)


READERS = {".py": read_python, ".sql": read_sql, ".md": read_markdown}


def read(paths: list[Path]) -> list[Passage]:
    """Return every passage of the files, and of the files below the directories."""
    files = sorted(file for path in paths for file in ([path] if path.is_file() else path.rglob("*")))
    return [
        passage for file in files if file.suffix in READERS for passage in READERS[file.suffix](file) if passage.text
    ]


def matches(passages: list[Passage]) -> dict[str, list[Passage]]:
    """Return the passages in which each of PATTERNS occurs, once for each occurrence."""
    return {
        name: [passage for passage in passages for _ in pattern.findall(CODE.sub("", passage.text))]
        for name, pattern in PATTERNS.items()
    }


def rates(passages: list[Passage]) -> dict[str, float]:
    """Return the occurrences of each pattern per 1,000 words, and two shares.

    `question` is the share of docstrings that open with a question word, `noun phrase` the share of
    functions' docstrings that open with a noun phrase.
    """
    words = sum(len(WORD.findall(CODE.sub("", passage.text))) for passage in passages) or 1
    docstrings = [passage for passage in passages if passage.docstring]
    found = {name: 1000 * len(hits) / words for name, hits in matches(passages).items()}
    functions = [passage for passage in passages if passage.of_function]
    return found | {
        "question": sum(map(is_question, docstrings)) / (len(docstrings) or 1),
        "noun phrase": sum(map(is_noun_phrase, functions)) / (len(functions) or 1),
    }


def is_question(passage: Passage) -> bool:
    """Return whether a docstring opens with a question word."""
    return passage.docstring and QUESTION.match(passage.text) is not None


def is_noun_phrase(passage: Passage) -> bool:
    """Return whether a function's docstring opens with a noun phrase."""
    return passage.of_function and NOUN_PHRASE.match(passage.text) is not None


def main(arguments: list[str]) -> None:
    """Print each occurrence, then the rates."""
    passages = read([Path(argument) for argument in arguments or [str(ROOT)]])
    lines = [(name, passage) for name, hits in matches(passages).items() for passage in hits]
    lines += [("question", passage) for passage in passages if is_question(passage)]
    lines += [("noun phrase", passage) for passage in passages if is_noun_phrase(passage)]
    for name, passage in lines:
        sys.stdout.write(f"{passage.path}:{passage.line}: {name}: {' '.join(passage.text.split())[:150]}\n")
    sys.stdout.write("".join(f"{name}: {rate:.3f}\n" for name, rate in rates(passages).items()))


if __name__ == "__main__":
    main(sys.argv[1:])
