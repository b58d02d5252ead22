//! Tensors and transformers. Nothing here knows pipelines, prints, or reads a clock.
