"""Random draws as a pure function of (seed, stream, entity, path), compiled once and shared by every engine.

A stream is a name. An entity is a message (or an actor, a customer). The path holds the counters of what repeats around
the draw (delivery, retry, turn of a loop), outermost first. Nothing counts draws, so a step put in or taken out shifts
no other's numbers, and architectures that name the same stream meet the same numbers.

Sampling is by inverse transform on open uniforms, in scalar compiled code without fastmath: numpy's vectorised `log`,
`exp` and `pow` differ from libm's in the last digits, these do not differ between engines.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import numpy as np
from numba import njit

DRAWS = "1"
"""Version of the scheme: any change that changes a number changes this."""

CONSTANT, EXPONENTIAL, UNIFORM, LOGNORMAL, WEIBULL, ERLANG, HYPEREXPONENTIAL, QUANTILES = range(8)
"""Codes of the families that `sample` knows."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S12, _ONE = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(12), np.uint64(1)
NO_TABLE = np.zeros(1)


@lru_cache(10_000)
def stream_key(seed: int, name: str) -> int:
    """The 64-bit key (as a signed integer) of the stream `name` under `seed`."""
    digest = hashlib.blake2b(f"{DRAWS}/{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def replication_seed(seed: int, replication: int) -> int:
    """The seed of replication r of `seed`: `seed` itself for r = 0, else a mix of the two, never their sum."""
    if replication == 0:
        return seed
    digest = hashlib.blake2b(f"replication/{seed}/{replication}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@njit("uint64(uint64)", cache=True, inline="always")
def _mix(z):  # type: ignore[no-untyped-def]
    """The finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014)."""
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    return z ^ (z >> _S31)


@njit("int64(int64, int64)", cache=True)
def fold(key, counter):  # type: ignore[no-untyped-def]
    """The key of a place one counter deeper on the path (of an entity: fold(0, entity))."""
    return np.int64(_mix(_mix(np.uint64(key) + _GOLDEN) + _GOLDEN * (np.uint64(counter) + _ONE)))


@njit("float64(int64, int64, int64)", cache=True, inline="always")
def _uniform(stream, place, part):  # type: ignore[no-untyped-def]
    z = _mix(_mix(np.uint64(stream) ^ np.uint64(place)) + _GOLDEN * (np.uint64(part) + _ONE))
    return (np.float64(z >> _S12) + 0.5) * 2.220446049250313e-16


@njit("float64(int64, int64)", cache=True)
def uniform(stream, place):  # type: ignore[no-untyped-def]
    """A uniform of the open interval (0, 1)."""
    return _uniform(stream, place, 0)


@njit("float64(float64)", cache=True)
def normal_quantile(p):  # type: ignore[no-untyped-def]
    """Quantile of the standard normal, to about 16 digits: Wichura, Applied Statistics 37 (1988), algorithm AS 241."""
    q = p - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        return (
            q
            * (((((((2509.0809287301226727 * r + 33430.575583588128105) * r + 67265.770927008700853) * r
                + 45921.953931549871457) * r + 13731.693765509461125) * r + 1971.5909503065514427) * r
                + 133.14166789178437745) * r + 3.387132872796366608)
            / (((((((5226.495278852545925 * r + 28729.085735721942674) * r + 39307.89580009271061) * r
                + 21213.794301586595867) * r + 5394.1960214247511077) * r + 687.1870074920579083) * r
                + 42.313330701600911252) * r + 1.0)
        )  # fmt: skip
    r = p if q < 0.0 else 1.0 - p
    r = math.sqrt(-math.log(r))
    if r <= 5.0:
        r -= 1.6
        x = (
            (((((((7.7454501427834140764e-4 * r + 0.0227238449892691845833) * r + 0.24178072517745061177) * r
                + 1.27045825245236838258) * r + 3.64784832476320460504) * r + 5.7694972214606914055) * r
                + 4.6303378461565452959) * r + 1.42343711074968357734)
            / (((((((1.05075007164441684324e-9 * r + 5.475938084995344946e-4) * r + 0.0151986665636164571966) * r
                + 0.14810397642748007459) * r + 0.68976733498510000455) * r + 1.6763848301838038494) * r
                + 2.05319162663775882187) * r + 1.0)
        )  # fmt: skip
    else:
        r -= 5.0
        x = (
            (((((((2.01033439929228813265e-7 * r + 2.71155556874348757815e-5) * r + 0.0012426609473880784386) * r
                + 0.026532189526576123093) * r + 0.29656057182850489123) * r + 1.7848265399172913358) * r
                + 5.4637849111641143699) * r + 6.6579046435011037772)
            / (((((((2.04426310338993978564e-15 * r + 1.4215117583164458887e-7) * r + 1.8463183175100546818e-5) * r
                + 7.868691311456132591e-4) * r + 0.0148753612908506148525) * r + 0.13692988092273580531) * r
                + 0.59983220655588793769) * r + 1.0)
        )  # fmt: skip
    return -x if q < 0.0 else x


@njit("float64(int64, float64, float64, float64, int64, int64)", cache=True)
def closed_form(family, a, b, c, stream, place):  # type: ignore[no-untyped-def]
    """One draw of a family other than QUANTILES; the meaning of a, b and c stands in `simlib.distributions`."""
    if family == CONSTANT:
        return a
    u = _uniform(stream, place, 0)
    if family == EXPONENTIAL:
        return -math.log(u) * a
    if family == UNIFORM:
        return a + (b - a) * u
    if family == LOGNORMAL:
        return c + math.exp(a + b * normal_quantile(u))
    if family == WEIBULL:
        return c + a * math.pow(-math.log(u), b)
    if family == ERLANG:
        total = -math.log(u)
        for k in range(1, int(b)):
            total += -math.log(_uniform(stream, place, k))
        return total * a
    return -math.log(_uniform(stream, place, 1)) * (b if u < a else c)


@njit("float64(int64, float64, float64, float64, float64[::1], int64, int64)", cache=True)
def sample(family, a, b, c, table, stream, place):  # type: ignore[no-untyped-def]
    """One draw of a family at a place of a stream; `table` holds the quantiles of QUANTILES."""
    if family != QUANTILES:
        return closed_form(family, a, b, c, stream, place)
    x = _uniform(stream, place, 0) * (table.size - 1)
    i = int(x)
    return table[i] + (table[i + 1] - table[i]) * (x - i)


@njit("float64[::1](int64, int64, int64)", cache=True)
def uniforms(stream, n, first):  # type: ignore[no-untyped-def]
    """Uniforms of n entities from the first on, shape (n,)."""
    out = np.empty(n)
    for i in range(n):
        out[i] = _uniform(stream, fold(0, first + i), 0)
    return out


@njit("float64[::1](int64, float64, float64, float64, float64[::1], int64, int64, int64)", cache=True)
def samples(family, a, b, c, table, stream, n, first):  # type: ignore[no-untyped-def]
    """Draws of n entities from the first on at an empty path, shape (n,)."""
    out = np.empty(n)
    for i in range(n):
        out[i] = sample(family, a, b, c, table, stream, fold(0, first + i))
    return out
