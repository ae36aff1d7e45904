"""The op table. Importing this package registers every op; each file holds one family."""

from treadle.ir.ops import leaf as leaf
from treadle.ir.ops import linalg as linalg
from treadle.ir.ops import movement as movement
