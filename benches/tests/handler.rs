//! What an idle handler takes: by itself, for what the process has of its allocator is counted.

use std::alloc::System;

use barewire_benches::handler::{BUFFER_BYTES, idle_bytes};
use cap::Cap;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// What a task may cost beside its buffer.
const TASK_BYTES_MAX: f64 = 1024.0;

#[test]
fn an_idle_handler_is_its_buffer_and_a_small_task() {
    let task = idle_bytes(500, || HEAP.allocated()) - BUFFER_BYTES as f64;
    assert!((64.0..=TASK_BYTES_MAX).contains(&task), "{task} bytes beside the buffer");
}
