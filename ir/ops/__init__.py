"""The op table. Importing this package registers every op; each file holds one family."""

from treadle.ir.ops import activations as activations
from treadle.ir.ops import arithmetic as arithmetic
from treadle.ir.ops import cast as cast
from treadle.ir.ops import checks as checks
from treadle.ir.ops import identity as identity
from treadle.ir.ops import indexing as indexing
from treadle.ir.ops import kernels as kernels
from treadle.ir.ops import leaf as leaf
from treadle.ir.ops import linalg as linalg
from treadle.ir.ops import logic as logic
from treadle.ir.ops import losses as losses
from treadle.ir.ops import movement as movement
from treadle.ir.ops import normalization as normalization
from treadle.ir.ops import reductions as reductions
from treadle.ir.ops import rounding as rounding
from treadle.ir.ops import scan as scan
from treadle.ir.ops import slicing as slicing
from treadle.ir.ops import softmax as softmax
from treadle.ir.ops import transcendental as transcendental
