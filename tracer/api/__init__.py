"""The array functions, by the names of the Array API standard."""

from treadle.tracer.api.elementwise import (
    abs as abs,
)
from treadle.tracer.api.elementwise import (
    add as add,
)
from treadle.tracer.api.elementwise import (
    astype as astype,
)
from treadle.tracer.api.elementwise import (
    bitwise_and as bitwise_and,
)
from treadle.tracer.api.elementwise import (
    bitwise_invert as bitwise_invert,
)
from treadle.tracer.api.elementwise import (
    bitwise_left_shift as bitwise_left_shift,
)
from treadle.tracer.api.elementwise import (
    bitwise_or as bitwise_or,
)
from treadle.tracer.api.elementwise import (
    bitwise_right_shift as bitwise_right_shift,
)
from treadle.tracer.api.elementwise import (
    bitwise_xor as bitwise_xor,
)
from treadle.tracer.api.elementwise import (
    ceil as ceil,
)
from treadle.tracer.api.elementwise import (
    clip as clip,
)
from treadle.tracer.api.elementwise import (
    copysign as copysign,
)
from treadle.tracer.api.elementwise import (
    cos as cos,
)
from treadle.tracer.api.elementwise import (
    divide as divide,
)
from treadle.tracer.api.elementwise import (
    equal as equal,
)
from treadle.tracer.api.elementwise import (
    erf as erf,
)
from treadle.tracer.api.elementwise import (
    erfinv as erfinv,
)
from treadle.tracer.api.elementwise import (
    exp as exp,
)
from treadle.tracer.api.elementwise import (
    exp2 as exp2,
)
from treadle.tracer.api.elementwise import (
    expm1 as expm1,
)
from treadle.tracer.api.elementwise import (
    floor as floor,
)
from treadle.tracer.api.elementwise import (
    floor_divide as floor_divide,
)
from treadle.tracer.api.elementwise import (
    greater as greater,
)
from treadle.tracer.api.elementwise import (
    greater_equal as greater_equal,
)
from treadle.tracer.api.elementwise import (
    isfinite as isfinite,
)
from treadle.tracer.api.elementwise import (
    isinf as isinf,
)
from treadle.tracer.api.elementwise import (
    isnan as isnan,
)
from treadle.tracer.api.elementwise import (
    less as less,
)
from treadle.tracer.api.elementwise import (
    less_equal as less_equal,
)
from treadle.tracer.api.elementwise import (
    log as log,
)
from treadle.tracer.api.elementwise import (
    log1p as log1p,
)
from treadle.tracer.api.elementwise import (
    log2 as log2,
)
from treadle.tracer.api.elementwise import (
    logical_and as logical_and,
)
from treadle.tracer.api.elementwise import (
    logical_not as logical_not,
)
from treadle.tracer.api.elementwise import (
    logical_or as logical_or,
)
from treadle.tracer.api.elementwise import (
    logical_xor as logical_xor,
)
from treadle.tracer.api.elementwise import (
    maximum as maximum,
)
from treadle.tracer.api.elementwise import (
    minimum as minimum,
)
from treadle.tracer.api.elementwise import (
    multiply as multiply,
)
from treadle.tracer.api.elementwise import (
    negative as negative,
)
from treadle.tracer.api.elementwise import (
    not_equal as not_equal,
)
from treadle.tracer.api.elementwise import (
    positive as positive,
)
from treadle.tracer.api.elementwise import (
    pow as pow,
)
from treadle.tracer.api.elementwise import (
    reciprocal as reciprocal,
)
from treadle.tracer.api.elementwise import (
    relu as relu,
)
from treadle.tracer.api.elementwise import (
    remainder as remainder,
)
from treadle.tracer.api.elementwise import (
    round as round,
)
from treadle.tracer.api.elementwise import (
    rsqrt as rsqrt,
)
from treadle.tracer.api.elementwise import (
    sigmoid as sigmoid,
)
from treadle.tracer.api.elementwise import (
    sign as sign,
)
from treadle.tracer.api.elementwise import (
    silu as silu,
)
from treadle.tracer.api.elementwise import (
    sin as sin,
)
from treadle.tracer.api.elementwise import (
    softplus as softplus,
)
from treadle.tracer.api.elementwise import (
    sqrt as sqrt,
)
from treadle.tracer.api.elementwise import (
    square as square,
)
from treadle.tracer.api.elementwise import (
    subtract as subtract,
)
from treadle.tracer.api.elementwise import (
    tanh as tanh,
)
from treadle.tracer.api.elementwise import (
    trunc as trunc,
)
from treadle.tracer.api.elementwise import (
    where as where,
)
from treadle.tracer.api.functional import (
    cross_entropy as cross_entropy,
)
from treadle.tracer.api.functional import (
    gelu as gelu,
)
from treadle.tracer.api.functional import (
    layer_norm as layer_norm,
)
from treadle.tracer.api.functional import (
    log_softmax as log_softmax,
)
from treadle.tracer.api.functional import (
    logsumexp as logsumexp,
)
from treadle.tracer.api.functional import (
    one_hot as one_hot,
)
from treadle.tracer.api.functional import (
    softmax as softmax,
)
from treadle.tracer.api.reductions import (
    all as all,
)
from treadle.tracer.api.reductions import (
    any as any,
)
from treadle.tracer.api.reductions import (
    argmax as argmax,
)
from treadle.tracer.api.reductions import (
    argmin as argmin,
)
from treadle.tracer.api.reductions import (
    count_nonzero as count_nonzero,
)
from treadle.tracer.api.reductions import (
    cumsum as cumsum,
)
from treadle.tracer.api.reductions import (
    cumulative_sum as cumulative_sum,
)
from treadle.tracer.api.reductions import (
    max as max,
)
from treadle.tracer.api.reductions import (
    mean as mean,
)
from treadle.tracer.api.reductions import (
    min as min,
)
from treadle.tracer.api.reductions import (
    prod as prod,
)
from treadle.tracer.api.reductions import (
    std as std,
)
from treadle.tracer.api.reductions import (
    sum as sum,
)
from treadle.tracer.api.reductions import (
    var as var,
)
