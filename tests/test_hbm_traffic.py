"""Bytes moved to and from HBM, counted by hand."""

from an_jax.benchmark.hbm_traffic import hbm_bytes

HLO = """HloModule jit_step, is_scheduled=true

%fused (p.0: bf16[8,128]) -> bf16[8,128] {
  %p.0 = bf16[8,128]{1,0} parameter(0)
  ROOT %m = bf16[8,128]{1,0} multiply(%p.0, %p.0)
}

%body (arg: (s32[], f32[64])) -> (s32[], f32[64]) {
  %arg = (s32[]{:T(128)S(6)}, f32[64]{0:T(128)}) parameter(0)
  %gte = f32[64]{0:T(128)} get-tuple-element(%arg), index=1
  %double = f32[64]{0:T(128)} add(%gte, %gte)
  ROOT %next = (s32[]{:T(128)S(6)}, f32[64]{0:T(128)}) tuple(%gte, %double)
}

ENTRY %main (x: bf16[8,128], w: f32[2,64]) -> f32[64] {
  %x = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0), metadata={op_name="x"}
  %w = f32[2,64]{1,0:T(2,128)} parameter(1)
  %slice-start = ((f32[2,64]{1,0}), f32[1,64]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%w)
  %slice-done = f32[1,64]{1,0:T(1,128)S(1)} slice-done(%slice-start)
  %near = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} fusion(%x), kind=kLoop, calls=%fused
  %both = (f32[64]{0}, /*index=1*/pred[64]{0:S(1)}) fusion(%near, /*index=1*/%slice-done)
  %far = f32[64]{0:T(128)} get-tuple-element(%both), index=0
  %copy-start = (f32[64]{0:T(128)S(1)}, f32[64]{0:T(128)}, u32[]{:S(2)}) copy-start(%far)
  %copy-done = f32[64]{0:T(128)S(1)} copy-done(%copy-start)
  %i = s32[]{:T(128)S(6)} constant(0)
  %start = (s32[]{:T(128)S(6)}, f32[64]{0:T(128)}) tuple(%i, %far)
  %while = (s32[]{:S(6)}, f32[64]{0}) while(%start), condition=%end, body=%body
  ROOT %result = f32[64]{0:T(128)} get-tuple-element(%while), index=1
}
"""


def test_arrays_in_vmem_do_not_count_and_loops_count_as_often_as_they_run():
    """A slice of w is read, x is read, `far` is written and read, and the loop adds 5 times."""
    a_slice, x, far = 4 * 64, 2 * 8 * 128, 4 * 64
    assert hbm_bytes(HLO, num_trips=5) == a_slice + x + 2 * far + 5 * 2 * far
