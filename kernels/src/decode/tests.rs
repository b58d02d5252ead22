use super::*;
use crate::model::Config;
use crate::random;

/// Large enough that its operations are cut into pieces where a thread has nothing else to do.
fn model() -> Model {
    let text: String = (0..400).map(|i| format!("def f{i}(x):\n    return x + {}\n", i * 37 % 1009)).collect();
    let tokenizer = crate::model::Tokenizer::train_bpe([text.as_str()].into_iter(), 500).unwrap();
    let config = Config { max_position_embeddings: 256, ..Config::llama(500, 128, 512, 4, 2) };
    Model::init(config, tokenizer, 1).unwrap()
}

fn request(nth: u64, draws: u64) -> Request {
    let length = 1 + random::bits(nth, 0) % 90;
    Request {
        prompt: (0..length).map(|at| 2 + (random::bits(nth, 1 + at) % 490) as u32).collect(),
        draws: (0..draws).map(|draw| Draw { seed: 1000 * nth + draw, greedy: draw == 1 }).collect(),
    }
}

#[test]
fn a_draw_is_the_same_alone_and_among_others_on_any_number_of_threads_in_any_precision() {
    let model = model();
    let sampling = Sampling { temperature: 0.8, top_p: 0.95, max_tokens: 7, ..Sampling::default() };
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let draw = |requests: &[Request], threads| {
            let decoder = Decoder::new(&model, 256, precision, threads).unwrap();
            decoder.generate(requests, &sampling, &|| false, &|_, _| {}).unwrap()
        };
        let alone: Vec<Vec<Completion>> = (0..40)
            .map(|nth| {
                let Request { prompt, draws } = request(nth, 3);
                let one =
                    |one: Draw| draw(&[Request { prompt: prompt.clone(), draws: vec![one] }], 1).remove(0).remove(0);
                draws.into_iter().map(one).collect()
            })
            .collect();
        for (others, draws, threads) in
            [(1, 3, 1), (1, 3, 2), (1, 3, 3), (2, 3, 3), (9, 3, 2), (40, 3, 2), (40, 3, 3), (2, 256, 2)]
        {
            let mut requests: Vec<Request> = (0..others).map(|nth| request(nth, draws)).collect();
            for backwards in [false, true] {
                let mut found = draw(&requests, threads);
                if backwards {
                    found.reverse();
                }
                for (nth, (found, alone)) in found.iter().zip(&alone).enumerate() {
                    let what = format!("{precision:?}: request {nth} of {others} of {draws} draws, {threads} threads");
                    assert_eq!(&found[..3], &alone[..], "{what}");
                }
                requests.reverse();
            }
        }
    }
}

#[test]
fn precisions_differ_little() {
    let model = model();
    let sampling = Sampling { max_tokens: 1, ..Sampling::default() };
    let requests: Vec<Request> = (0..20).map(|nth| request(nth, 2)).collect();
    let logprobs = |precision| -> Vec<f32> {
        let decoder = Decoder::new(&model, 256, precision, 2).unwrap();
        let drawn = decoder.generate(&requests, &sampling, &|| false, &|_, _| {}).unwrap();
        drawn.iter().map(|draws| draws[1].logprob).collect()
    };
    let exact = logprobs(Precision::F32);
    for (precision, tolerance) in [(Precision::Bf16, 0.02), (Precision::Int8, 0.06)] {
        let found = logprobs(precision);
        assert_ne!(found, exact);
        for (found, exact) in found.iter().zip(&exact) {
            assert!((found - exact).abs() < tolerance, "{precision:?}: {found} and {exact}");
        }
    }
}

#[test]
fn too_little_room_for_keys_and_values_changes_no_draw() {
    let model = model();
    let sampling = Sampling { temperature: 0.8, max_tokens: 70, ..Sampling::default() };
    let requests: Vec<Request> = (0..6).map(|nth| request(nth, 9)).collect();
    let draw = |limit, threads| {
        let decoder = Decoder::new(&model, 256, Precision::F32, threads).unwrap().with_cache_limit(limit);
        decoder.generate(&requests, &sampling, &|| false, &|_, _| {})
    };
    let free = draw(None, 1).unwrap();
    // The longest sequence takes 6 pages.
    let page = cache::page_bytes(&Network::new(&model.config, Cpu::new(), 1).unwrap()) as u64;
    for (pages, threads) in [(6, 1), (7, 2), (13, 2), (25, 1), (60, 2)] {
        assert_eq!(draw(Some(pages * page), threads).unwrap(), free, "{pages} pages, {threads} threads");
    }
    let refused = draw(Some(3 * page), 2).unwrap_err();
    assert!(matches!(&refused, Error::Request { message, .. } if message.contains("keys and values")), "{refused}");
}
