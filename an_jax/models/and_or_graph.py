"""The And-Or graph of AOGNet's building blocks (Li, Song, Wu: "AOGNets", CVPR 2019, section 3.1).

The graph is a grammar over a line of `dim` primitives, such as the words of a sentence. A node
covers an interval of primitives:

    Or-node        the alternatives: the interval as a whole, or one of its splits,
    Terminal-node  the interval as a whole,
    And-node       a split: the interval's left part and its right part, each an Or-node.

This module is pure Python. It has the rules of the grammar; aognet.py has what the nodes compute.
"""

import dataclasses
import enum
import functools
import itertools


class Kind(enum.Enum):
    """The kind of a node."""

    TERMINAL = "Terminal"
    AND = "And"
    OR = "Or"


@dataclasses.dataclass(eq=False)
class Node:
    """A node. With `eq=False`, nodes are compared by identity.

    Attributes:
        id: position in the order of creation; the root is 0.
        kind: Terminal-, And- or Or-node.
        first, last: the interval of primitives it covers, both inclusive.
        left_width: number of primitives in the left part of an And-node.
        children: children in the grammar by increasing id. The released models concatenate in this
            order, not from left to right.
        lateral: a node of the same kind and width whose output is added.
        num_paths: number of paths from the root along children.
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
        """The nodes whose outputs it takes: its children, then the lateral node."""
        return self.children + ([self.lateral] if self.lateral else [])


class AndOrGraph:
    """The graph over `dim` primitives, with lateral connections.

    Args:
        dim: number of primitives.
        wide_left: of two mirrored splits, such as 1 + 3 and 3 + 1, keep the one with the wider left
            part. By default, the one with the narrower left part.

    Attributes:
        nodes: by id; the root is the first.
        bottom_up: the nodes in an order of computation: each after its inputs, the root last.

    Raises:
        ValueError: dim is below 1.
    """

    def __init__(self, dim: int, *, wide_left: bool = False):
        if dim < 1:
            raise ValueError(f"a line needs at least one primitive, not {dim}")
        self.nodes: list[Node] = []
        self._or_nodes: dict[tuple[int, int], Node] = {}  # by interval
        self._or_node(0, dim - 1)
        for node in self.nodes:  # the list grows as nodes unfold, breadth-first
            self._unfold(node, wide_left)
        for node in self.nodes:
            node.children.sort(key=lambda child: child.id)
        _connect(self._by_width(Kind.AND), from_right=True)
        _connect(self._by_width(Kind.OR), from_right=False)
        self.bottom_up = _post_order(self.nodes[0])
        self._count_paths()

    def parents(self, node: Node) -> set[Node]:
        """Returns the nodes that take the output of `node`."""
        return {parent for parent in self.nodes if node in parent.inputs}

    def are_siblings(self, a: Node, b: Node) -> bool:
        """Tells whether some node takes the outputs of both."""
        return not self.parents(a).isdisjoint(self.parents(b))

    def _add(self, kind: Kind, first: int, last: int, left_width: int = 0) -> Node:
        node = Node(len(self.nodes), kind, first, last, left_width)
        self.nodes.append(node)
        return node

    def _or_node(self, first: int, last: int) -> Node:
        """Returns the only Or-node of an interval."""
        if (first, last) not in self._or_nodes:
            self._or_nodes[first, last] = self._add(Kind.OR, first, last)
        return self._or_nodes[first, last]

    def _unfold(self, node: Node, wide_left: bool) -> None:
        """Applies the rule of the grammar to a node: adds its children."""
        if node.kind is Kind.OR:
            node.children.append(self._add(Kind.TERMINAL, node.first, node.last))
            for left_width in splits(node.width, wide_left):
                node.children.append(self._add(Kind.AND, node.first, node.last, left_width))
        elif node.kind is Kind.AND:
            middle = node.first + node.left_width
            node.children.append(self._or_node(node.first, middle - 1))
            node.children.append(self._or_node(middle, node.last))

    def _by_width(self, kind: Kind) -> list[list[Node]]:
        """Groups the nodes of a kind by increasing width, each group from left to right.

        Or-nodes are sorted by their first primitive, And-nodes by where they split.
        """
        nodes = sorted(
            (node for node in self.nodes if node.kind is kind),
            key=lambda node: (node.first + node.left_width, node.first),
        )
        widths = sorted({node.width for node in nodes})
        return [[node for node in nodes if node.width == width] for width in widths]

    def _count_paths(self) -> None:
        self.nodes[0].num_paths = 1
        for node in reversed(self.bottom_up):
            for child in node.children:
                child.num_paths += node.num_paths


@functools.cache
def and_or_graph(dim: int, wide_left: bool) -> AndOrGraph:
    """Returns the graph with these arguments, built once."""
    return AndOrGraph(dim, wide_left=wide_left)


def splits(width: int, wide_left: bool) -> list[int]:
    """Returns the left part's width in each binary split of an interval, without mirrored ones."""
    narrow = range(1, width // 2 + 1)
    return [width - left for left in narrow] if wide_left else list(narrow)


def _connect(groups: list[list[Node]], from_right: bool) -> None:
    """Connects the nodes of each group in a lateral chain.

    Args:
        groups: nodes of one kind, by width.
        from_right: whether a node takes the output of its right neighbour or of its left one. After
            a group of one node, the direction is reversed for one group.
    """
    is_reversed = False
    for group in groups:
        if len(group) == 1:
            is_reversed = not is_reversed
            continue
        for left, right in itertools.pairwise(group):
            if from_right != is_reversed:
                left.lateral = right
            else:
                right.lateral = left
        is_reversed = False


def _post_order(root: Node) -> list[Node]:
    """Returns the nodes depth-first from the root, each after its inputs."""
    order: list[Node] = []

    def visit(node: Node) -> None:
        for source in node.inputs:
            if source not in order:
                visit(source)
        order.append(node)

    visit(root)
    return order
