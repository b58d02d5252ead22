//! Experiments over tables. Nothing here knows a kind, a tensor or a terminal.
