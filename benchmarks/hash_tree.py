"""What the hash tree costs: making it, proving from it, checking a proof."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from hashlib import sha256

from benchmarks.harness import report
from benchmarks.rig.entrance import enter
from farmer.audit.challenge import sample_leaves
from farmer.audit.proof import prove_sample, verify_sample
from farmer.audit.ranges import RangeVerifier
from farmer.audit.tree import TreeHasher

SIZE = 64 * 1024**2
SAMPLES = 20
STEP = 256 * 1024


def best_s(work: Callable[[], object], rounds: int = 7) -> float:
    """Return the shortest of some runs: the one that was disturbed least."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def main(_words: Sequence[str]) -> int:
    data = os.urandom(SIZE)
    view = memoryview(data)

    def tree():
        hasher = TreeHasher()
        for at in range(0, SIZE, STEP):
            hasher.update(view[at : at + STEP])
        return hasher.finish()

    made = tree()
    shard, nonce = made.shard_id(), os.urandom(32)

    def prove():
        leaves = sample_leaves(nonce, shard, SIZE, SAMPLES)
        return prove_sample(made, leaves, lambda block: view[block << 16 : (block + 1) << 16])

    def stream():
        verifier = RangeVerifier(shard, SIZE, 0, SIZE, ())
        for at in range(0, SIZE, STEP):
            verifier.update(view[at : at + STEP])
        verifier.finish()

    proof = prove()
    proof_bytes = sum(map(len, proof.leaves)) + sum(map(len, proof.nodes))
    check_s = best_s(lambda: verify_sample(shard, SIZE, nonce, SAMPLES, proof))
    plain_s = best_s(lambda: sha256(data).digest())
    figures = {
        "plain_sha256_gb_per_s": round(SIZE / plain_s / 1e9, 2),
        "tree_in_256_kib_steps_gb_per_s": round(SIZE / best_s(tree) / 1e9, 2),
        "range_check_while_streaming_gb_per_s": round(SIZE / best_s(stream) / 1e9, 2),
        "prove_20_leaves_of_64_mib_warm_ms": round(best_s(prove) * 1e3, 2),
        "check_that_proof_ms": round(check_s * 1e3, 2),
        "that_proof_kib": round(proof_bytes / 1024, 1),
    }
    report("hash_tree", figures)
    return 0


if __name__ == "__main__":
    enter(main)
