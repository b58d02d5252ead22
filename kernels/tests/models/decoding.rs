//! A completion depends on its prompt and its draw alone.

use crate::{tiny, tokens};
use std::sync::Mutex;
use tracetune_kernels::Error;
use tracetune_kernels::decode::{Completion, Draw, Finish, Request, Sampling, generate};
use tracetune_kernels::model::Model;

fn requests() -> Vec<Request> {
    (0..34)
        .map(|r| Request {
            prompt: tokens(1 + (r as usize * 13) % 70, r),
            draws: (0..1 + r % 5).map(|d| Draw { seed: r * 10 + d, greedy: d == 3 }).collect(),
        })
        .collect()
}

fn sampling() -> Sampling {
    Sampling { temperature: 0.9, top_p: 0.97, max_tokens: 40, ..Sampling::default() }
}

fn draw(model: &Model, requests: &[Request], threads: usize) -> Vec<Vec<Completion>> {
    generate(model, requests, &sampling(), threads, &|| false, &|_, _| {}).expect("decodes")
}

fn assert_same(a: &[Completion], b: &[Completion]) {
    assert_eq!(a, b);
    assert!(a.iter().zip(b).all(|(a, b)| a.logprob.to_bits() == b.logprob.to_bits()));
}

#[test]
fn a_request_alone_gives_what_it_gives_among_others_on_any_threads_in_any_order() {
    let (model, requests) = (tiny(1), requests());
    let all = draw(&model, &requests, 1);
    for threads in [2, 5] {
        for (a, b) in all.iter().zip(draw(&model, &requests, threads)) {
            assert_same(a, &b);
        }
    }
    let reversed: Vec<Request> = requests.iter().rev().cloned().collect();
    for (a, b) in all.iter().rev().zip(draw(&model, &reversed, 2)) {
        assert_same(a, &b);
    }
    for (request, expected) in requests.iter().zip(&all).take(12) {
        assert_same(expected, &draw(&model, std::slice::from_ref(request), 1)[0]);
    }
    for (a, b) in all[3..10].iter().zip(draw(&model, &requests[3..10], 1)) {
        assert_same(a, &b);
    }
}

#[test]
fn sharing_a_prompt_changes_no_bits() {
    let model = tiny(2);
    let draws: Vec<Draw> = (0..130).map(|seed| Draw { seed, greedy: false }).collect();
    let shared = Request { prompt: tokens(45, 9), draws: draws.clone() };
    let alone: Vec<Request> =
        draws.iter().map(|draw| Request { prompt: shared.prompt.clone(), draws: vec![*draw] }).collect();
    let together = draw(&model, std::slice::from_ref(&shared), 1);
    let apart: Vec<Completion> = draw(&model, &alone, 2).into_iter().flatten().collect();
    assert_same(&together[0], &apart);
}

#[test]
fn the_sampler_and_the_trainer_agree_to_the_bit() {
    let model = tiny(3);
    let request = Request { prompt: tokens(50, 4), draws: vec![Draw { seed: 5, greedy: false }] };
    let sampling = Sampling { max_tokens: 60, ..Sampling::default() };
    let drawn = generate(&model, std::slice::from_ref(&request), &sampling, 1, &|| false, &|_, _| {}).expect("decodes");
    let completion = &drawn[0][0];
    let mut all = [request.prompt.clone(), completion.tokens.clone()].concat();
    if completion.finish == Finish::Stop {
        all.push(model.tokenizer.eos());
    }
    let scored = model.logprobs(&all, request.prompt.len()).expect("scores");
    let sum = scored.iter().fold(0.0f32, |sum, logprob| sum + logprob);
    assert!(completion.tokens.len() > 5);
    assert!((sum - completion.logprob).abs() <= 1e-5 * sum.abs(), "{sum} {}", completion.logprob);
}

#[test]
fn a_stop_text_ends_a_completion_and_is_not_part_of_it() {
    let model = tiny(4);
    let request = Request { prompt: tokens(5, 1), draws: vec![Draw { seed: 1, greedy: false }] };
    let run = |stop: Vec<String>| {
        let sampling = Sampling { max_tokens: 60, stop, ..Sampling::default() };
        generate(&model, std::slice::from_ref(&request), &sampling, 1, &|| false, &|_, _| {}).expect("decodes")[0][0]
            .clone()
    };
    let free = run(vec![]);
    let middle: Vec<(usize, char)> = free.text.char_indices().filter(|(_, c)| c.is_ascii_alphanumeric()).collect();
    let (at, stop) = middle[middle.len() / 2];
    let first = free.text.find(stop).expect("it is there");
    let stopped = run(vec!["never".into(), stop.to_string()]);
    assert!(first <= at);
    assert_eq!((stopped.text.as_str(), stopped.finish), (&free.text[..first], Finish::Stop));
    assert!(free.tokens.starts_with(&stopped.tokens));
}

#[test]
fn results_are_announced_once_each_and_cancelling_stops() {
    let (model, requests) = (tiny(5), requests());
    let heard = Mutex::new(vec![0; requests.len()]);
    generate(&model, &requests, &sampling(), 2, &|| false, &|index, completions| {
        assert_eq!(completions.len(), requests[index].draws.len());
        heard.lock().expect("not poisoned")[index] += 1;
    })
    .expect("decodes");
    assert!(heard.into_inner().expect("not poisoned").iter().all(|count| *count == 1));
    let stopped = generate(&model, &requests, &sampling(), 2, &|| true, &|_, _| {});
    assert!(matches!(stopped, Err(Error::Cancelled)));
}

#[test]
fn the_last_position_ends_a_completion_and_a_longer_prompt_is_refused() {
    let model = tiny(6);
    let draws = vec![Draw { seed: 1, greedy: false }];
    let sampling = Sampling { max_tokens: 500, ..Sampling::default() };
    let run = |prompt: usize| {
        let request = Request { prompt: tokens(prompt, 2), draws: draws.clone() };
        generate(&model, &[request], &sampling, 1, &|| false, &|_, _| {})
    };
    let completion = &run(256).expect("decodes")[0][0];
    assert!(completion.tokens.len() <= 1);
    assert!(run(250).expect("decodes")[0][0].tokens.len() <= 7);
    let error = run(257).expect_err("too long").to_string();
    assert_eq!(error, "request 0: the prompt has 257 tokens, the model 256 positions");
}
