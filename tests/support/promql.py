"""Derive the labels of a PromQL expression's result, and find the parts that can never match.

Prometheus accepts any name: a rule over a metric that does not exist, or a join on a label which one side lacks, is
valid and silent for ever. The labels of every expression follow from those of the known metrics.
"""

import re
from collections.abc import Mapping
from typing import NoReturn, TypeAlias

Labels: TypeAlias = frozenset[str] | None
"""Labels of a vector; None: a number."""

TARGET = frozenset(("job", "instance"))
"""Labels that Prometheus adds to every scraped sample."""

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.]))"""
    r"""|(?P<duration>(?:\d+(?:ms|[smhdwy]))+|\$\w+)|(?P<name>[a-zA-Z_:][\w:]*)"""
    r"""|(?P<operator>==|!=|>=|<=|=~|!~|[-+*/%^<>=(){}\[\],:@]))""",
)
_PRECEDENCE = (
    ("or",),
    ("and", "unless"),
    ("==", "!=", ">", "<", ">=", "<="),
    ("+", "-"),
    ("*", "/", "%"),
)
_AGGREGATIONS = {"sum", "min", "max", "avg", "count", "group", "stddev", "topk", "bottomk", "quantile"}
_NUMBERS = {"time", "scalar", "pi"}


class Parser:
    """Parses one expression; `faults` lists the parts that can never match.

    matchers: metric, label and pattern of each.
    """

    def __init__(self, text: str, known: Mapping[str, frozenset[str]]) -> None:
        self.faults: list[str] = []
        self.metrics: list[str] = []
        self.named_labels: list[str] = []
        self.matchers: list[tuple[str, str, str]] = []
        self._known = known
        self._tokens = _tokens(text)
        self._at = 0
        self.labels = self._binary(0)
        if self._at != len(self._tokens):
            self._fail("the end")

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, *wanted: str) -> str:
        token = self._peek()
        if wanted and token not in wanted:
            self._fail(" or ".join(wanted))
        self._at += 1
        return token

    def _fail(self, wanted: str) -> NoReturn:
        raise ValueError(f"{wanted} expected before {' '.join(self._tokens[self._at : self._at + 5])!r}")

    def _skip(self, token: str) -> bool:
        if self._peek() == token:
            self._at += 1
            return True
        return False

    def _binary(self, level: int) -> Labels:
        if level == len(_PRECEDENCE):
            return self._unary()
        left = self._binary(level + 1)
        while self._peek() in _PRECEDENCE[level]:
            operator = self._take()
            self._skip("bool")
            matching, names = (self._take(), self._names()) if self._peek() in {"on", "ignoring"} else ("", frozenset())
            grouped = self._names() if self._skip("group_left") else None
            left = self._join(operator, left, self._binary(level + 1), matching=matching, names=names, grouped=grouped)
        return left

    def _join(
        self,
        operator: str,
        left: Labels,
        right: Labels,
        *,
        matching: str,
        names: frozenset[str],
        grouped: frozenset[str] | None,
    ) -> Labels:
        if left is None or right is None:
            return left if right is None else right
        if operator == "or":
            return left & right
        self._require(names if matching else frozenset(), left, f"the left of {operator}")
        self._require(names if matching else frozenset(), right, f"the right of {operator}")
        used_left, used_right = (left - names, right - names) if matching == "ignoring" else (left, right)
        if matching != "on" and used_left != used_right:
            self.faults.append(f"{operator} never matches: {sorted(used_left)} against {sorted(used_right)}")
        if operator in {"and", "unless"}:
            return left
        if grouped is not None:
            self._require(grouped, right, "group_left")
            return left | grouped
        return names if matching == "on" else used_left

    def _require(self, names: frozenset[str], labels: frozenset[str], where: str) -> None:
        self.faults.extend(f"{where} has no label {name}: {sorted(labels)}" for name in sorted(names - labels))

    def _unary(self) -> Labels:
        while self._peek() in {"-", "+"}:
            self._take()
        labels = self._atom()
        while self._peek() in {"[", "offset"}:
            if self._take() == "offset":
                self._take()
            else:
                while self._take() != "]":
                    pass
        return labels

    def _atom(self) -> Labels:
        token = self._take()
        if token == "(":
            labels = self._binary(0)
            self._take(")")
            return labels
        if token in _AGGREGATIONS:
            return self._aggregation(token)
        if token in {"Inf", "NaN"} or token[0] in "0123456789\"'":
            return None
        if not re.fullmatch(r"[a-zA-Z_:][\w:]*", token):
            self._fail("a value")
        return self._function(token) if self._peek() == "(" else self._selector(token)

    def _aggregation(self, name: str) -> Labels:
        kept = self._grouping()
        labels = self._arguments()[-1][0]
        kept = kept or self._grouping()
        assert labels is not None, name
        how, names = kept or ("by", frozenset())
        self._require(names, labels, name)
        if name in {"topk", "bottomk"}:
            return labels
        return names if how == "by" else labels - names

    def _grouping(self) -> tuple[str, frozenset[str]] | None:
        return (self._take(), self._names()) if self._peek() in {"by", "without"} else None

    def _names(self) -> frozenset[str]:
        self._take("(")
        found = set()
        while not self._skip(")"):
            found.add(self._take())
            self._skip(",")
        self.named_labels.extend(sorted(found))
        return frozenset(found)

    def _arguments(self) -> list[tuple[Labels, str]]:
        """Return the labels and the first token of each argument."""
        self._take("(")
        found = []
        while not self._skip(")"):
            first = self._peek()
            found.append((self._binary(0), first))
            self._skip(",")
        return found

    def _function(self, name: str) -> Labels:
        start = self._at
        arguments = self._arguments()
        vectors = [labels for labels, _ in arguments if labels is not None]
        if name in _NUMBERS or (not vectors and name != "vector"):
            return None
        if name == "absent":
            # The result has the labels that the selector demands.
            inside = "".join(self._tokens[start : self._at])
            return frozenset(re.findall(r'(\w+)="', inside)) & vectors[0]
        if name == "label_replace":
            source = arguments[3][1].strip("\"'")
            self._require(frozenset({source} - {""}), vectors[0], name)
            return vectors[0] | {arguments[1][1].strip("\"'")}
        labels = vectors[0] if vectors else frozenset[str]()
        if name == "histogram_quantile":
            self._require(frozenset({"le"}), labels, name)
            return labels - {"le"}
        return labels

    def _selector(self, metric: str) -> frozenset[str]:
        self.metrics.append(metric)
        if metric not in self._known:
            self.faults.append(f"nobody shows {metric}")
        labels = self._known.get(metric, frozenset())
        if self._skip("{"):
            while not self._skip("}"):
                name = self._take()
                self.named_labels.append(name)
                self._require(frozenset({name}), labels, metric)
                operator = self._take("=", "!=", "=~", "!~")
                value = self._take()[1:-1]
                self.matchers.append((metric, name, value if "~" in operator else re.escape(value)))
                self._skip(",")
        return labels


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    text = text.strip()
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise ValueError(f"no PromQL: {text[at : at + 20]!r}")
        found.append(token[0].strip())
        at = token.end()
    return found
