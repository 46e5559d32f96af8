"""The And-Or graph of AOGNet's building blocks (Li, Song, Wu: "AOGNets", CVPR 2019, section 3.1).

A grammar over a line of `dim` primitives, such as the words of a sentence. An interval of them is

    Or-node        an alternation: the interval as a whole, or one of its splits,
    Terminal-node  the interval as a whole,
    And-node       a split: the interval's left part and its right part, each an Or-node.

Pure Python: it knows the rules of the grammar, and nothing of what the nodes compute.
"""

import dataclasses
import enum
import functools
import itertools
from collections import deque


class Kind(enum.Enum):
    """What a node stands for."""

    TERMINAL = "Terminal"
    AND = "And"
    OR = "Or"


@dataclasses.dataclass(eq=False)
class Node:
    """One node; `eq=False`: two nodes are the same only if they are one object.

    Attributes:
        id: position in the order of creation; the root is 0.
        kind: terminal, And or Or.
        first, last: the interval of primitives it covers, both inclusive.
        left_width: And-nodes only: number of primitives in the left part.
        children: of the grammar, by increasing id (this, not left to right, is the order in which
            the released models concatenate).
        lateral: a further child of the same kind and width, whose output is added.
        num_paths: number of paths of the grammar from the root.
    """

    id: int
    kind: Kind
    first: int
    last: int
    left_width: int = 0
    children: list["Node"] = dataclasses.field(default_factory=list)
    lateral: "Node | None" = None
    num_paths: int = 0

    @property
    def width(self) -> int:
        """Number of primitives covered."""
        return self.last - self.first + 1

    @property
    def inputs(self) -> list["Node"]:
        """All nodes whose outputs it takes: its children, then the lateral one."""
        return self.children + ([self.lateral] if self.lateral else [])


class AndOrGraph:
    """The graph over `dim` primitives, with lateral connections.

    Args:
        dim: number of primitives.
        wide_left: of two splits that mirror each other, such as 1 + 3 and 3 + 1, keep the one with
            the wider left part; else the one with the narrower. So no split has a symmetric twin.

    Attributes:
        nodes: by id; the root is the first.
        bottom_up: every node after all nodes it takes its inputs from, the root last.

    Raises:
        ValueError: no primitives.
    """

    def __init__(self, dim: int, *, wide_left: bool = False):
        if dim < 1:
            raise ValueError("a line needs at least one primitive")
        self.nodes: list[Node] = []
        self._unfold(dim, wide_left)
        for node in self.nodes:
            node.children.sort(key=lambda child: child.id)
        _connect(self._by_width(Kind.AND), from_right=True)
        _connect(self._by_width(Kind.OR), from_right=False)
        self.bottom_up = _post_order(self.nodes[0])
        self._count_paths()

    def parents(self, node: Node) -> set[Node]:
        """All nodes that take the output of `node`."""
        return {parent for parent in self.nodes if node in parent.inputs}

    def are_siblings(self, a: Node, b: Node) -> bool:
        """Whether some node takes the outputs of both."""
        return not self.parents(a).isdisjoint(self.parents(b))

    def _unfold(self, dim, wide_left):
        """Applies the rules of the grammar breadth-first, from the whole line downwards."""
        alternatives: dict[tuple[int, int], Node] = {}  # the Or-node of each interval
        queue: deque[Node] = deque()

        def add(kind, first, last, left_width=0):
            node = Node(len(self.nodes), kind, first, last, left_width)
            self.nodes.append(node)
            if kind is not Kind.TERMINAL:
                queue.append(node)
            return node

        def alternative(first, last):
            if (first, last) not in alternatives:
                alternatives[first, last] = add(Kind.OR, first, last)
            return alternatives[first, last]

        alternative(0, dim - 1)
        while queue:
            node = queue.popleft()
            if node.kind is Kind.OR:
                node.children.append(add(Kind.TERMINAL, node.first, node.last))
                for left_width in splits(node.width, wide_left):
                    node.children.append(add(Kind.AND, node.first, node.last, left_width))
            else:
                middle = node.first + node.left_width
                node.children.append(alternative(node.first, middle - 1))
                node.children.append(alternative(middle, node.last))

    def _by_width(self, kind) -> list[list[Node]]:
        """The nodes of a kind in groups of increasing width, each from left to right: And-nodes
        by where they split, Or-nodes by where they begin."""
        nodes = sorted(
            (node for node in self.nodes if node.kind is kind),
            key=lambda node: (node.first + node.left_width, node.first),
        )
        widths = sorted({node.width for node in nodes})
        return [[node for node in nodes if node.width == width] for width in widths]

    def _count_paths(self):
        self.nodes[0].num_paths = 1
        for node in reversed(self.bottom_up):
            for child in node.children:
                child.num_paths += node.num_paths


@functools.cache
def and_or_graph(dim: int, wide_left: bool) -> AndOrGraph:
    """The graph of these arguments, built once."""
    return AndOrGraph(dim, wide_left=wide_left)


def splits(width: int, wide_left: bool) -> list[int]:
    """Widths of the left part in the binary splits of an interval, without symmetric twins."""
    narrow = range(1, width // 2 + 1)
    return [width - left for left in narrow] if wide_left else list(narrow)


def _connect(groups: list[list[Node]], from_right: bool):
    """Lateral connections: a chain through the nodes of each group.

    Args:
        groups: nodes of one kind, by width.
        from_right: whether a node takes the output of its right neighbour, or of its left one. A
            lone node, which has no neighbour, turns this for the next chain only.
    """
    turned = False
    for group in groups:
        if len(group) == 1:
            turned = not turned
            continue
        for left, right in itertools.pairwise(group):
            if from_right != turned:
                left.lateral = right
            else:
                right.lateral = left
        turned = False


def _post_order(root: Node) -> list[Node]:
    """Depth-first from the root, inputs before the node that takes them."""
    order: list[Node] = []

    def visit(node):
        for source in node.inputs:
            if source not in order:
                visit(source)
        order.append(node)

    visit(root)
    return order
