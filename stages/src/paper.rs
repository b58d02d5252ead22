//! What NExT's authors measured, for `tracetune compare --paper`.

use tracetune_cli::{Here, Paper, PaperTable, Setup};

/// Ni et al. 2024 (arXiv:2404.14662v2), Table 2: MBPP-R's dev split, sampled. The proxies are PaLM 2-S and PaLM 2-S*.
pub const NEXT: Paper = Paper {
    source: "NExT (arXiv 2404.14662), Table 2: MBPP-R dev",
    tables: &[
        PaperTable {
            caption: "end to end",
            condition: None,
            ks: &[1, 5, 10, 25],
            rows: &[
                ("GPT-4, 3-shot", &[63.2, 75.1, 78.5, 82.7]),
                ("GPT-3.5, 3-shot", &[42.9, 65.0, 70.7, 76.7]),
                ("PaLM 2-L, 3-shot (base)", &[23.2, 45.7, 54.7, 65.0]),
                ("PaLM 2-L + NExT, 0-shot", &[49.3, 68.1, 73.5, 79.4]),
            ],
            gain: ("gain of NExT", &[26.1, 22.4, 18.8, 14.4]),
        },
        PaperTable {
            caption: "fixes by smaller models from the rationales",
            condition: Some("proxy"),
            ks: &[1, 5, 10, 25],
            rows: &[
                ("GPT-4, 3-shot", &[44.8, 66.5, 72.5, 77.8]),
                ("GPT-3.5, 3-shot", &[26.6, 48.8, 57.0, 66.4]),
                ("PaLM 2-L, 3-shot (base)", &[22.5, 43.4, 51.9, 61.5]),
                ("PaLM 2-L + NExT, 0-shot", &[28.8, 49.9, 57.3, 65.5]),
            ],
            gain: ("gain of NExT", &[6.3, 6.5, 5.4, 4.0]),
        },
    ],
    setup: &[
        setup("model", "PaLM 2-L, closed; its base prompted with 3 exemplars", Here::Params(&[("model", "source")])),
        setup(
            "problems",
            "MBPP-R: 10,047 training and 1,468 dev repairs of programs that models wrote",
            Here::Params(&[("dataset", "source")]),
        ),
        setup("hard set", "the base solves fewer than 10 % of its samples", Here::Params(&[("filter", "hard_below")])),
        setup("samples", "32 a problem and round", Here::Params(&[("sample", "n")])),
        setup("temperature", "0.8", Here::Params(&[("sample", "temperature")])),
        setup("accepted samples", "all that pass", Here::Params(&[("filter", "cap")])),
        setup("rounds", "10, each from the base; the checkpoint by dev pass@1", Here::Rounds),
        setup("intervals", "none published", Here::Always("95 %, over problems")),
    ],
};

const fn setup(what: &'static str, there: &'static str, here: Here) -> Setup {
    Setup { what, there, here }
}
