//! Random graphs: any finishing order gives one result.

use proptest::prelude::*;

use super::*;

/// With few of everything.
fn machine(threads: usize) -> Machine {
    Machine { threads, memory_bytes: 10, slots: [("gpu".to_owned(), 2)].into() }
}

/// How a node will turn out, whenever it is looked at.
#[derive(Clone, Debug)]
struct Fate {
    is_hit: bool,
    fails: bool,
    /// Starts that find this input's output gone, before one succeeds.
    losses: usize,
    value: Option<u8>,
}

#[derive(Debug, PartialEq)]
struct Outcome {
    phases: Vec<Phase>,
    /// What each node's inputs came to.
    inputs: Vec<Vec<Option<NodeIndex>>>,
}

/// Runs to the end; `choices` says which of the running nodes finishes next.
fn simulate(description: &Description, fates: &[Fate], choices: &[usize]) -> Outcome {
    let mut state = State::new(description.clone());
    let mut running: Vec<(NodeIndex, usize)> = Vec::new();
    let mut losses: Vec<usize> = fates.iter().map(|fate| fate.losses).collect();
    let mut choices = choices.iter().cycle();
    let mut inputs = vec![Vec::new(); fates.len()];
    while !state.is_over() {
        let decisions = state.decide();
        for decision in &decisions {
            match *decision {
                Decision::Lookup(node) => {
                    inputs[node] = description.nodes[node].sources.iter().map(|source| state.resolve(source)).collect();
                    for input in &inputs[node] {
                        assert_eq!(state.phases[input.unwrap()], Phase::Done, "looked up before its inputs were done");
                    }
                    let values = RoundValues { stop: value(&fates[node]), select: value(&fates[node]) };
                    state.tell(if fates[node].is_hit { Happening::Done(node, values) } else { Happening::Miss(node) });
                }
                Decision::Start(node, threads) => running.push((node, threads)),
                Decision::Skip(..) => {}
            }
        }
        let threads: usize = running.iter().map(|(_, threads)| threads).sum();
        assert!(threads <= description.machine.threads, "more threads than there are");
        if decisions.is_empty() && !state.is_over() {
            assert!(!running.is_empty(), "nothing to wait for: {:?}", state.phases);
            let (node, _) = running.swap_remove(choices.next().unwrap() % running.len());
            let fate = &fates[node];
            state.tell(match inputs[node].first() {
                Some(Some(from)) if losses[node] > 0 => {
                    losses[node] -= 1;
                    Happening::InputLost(node, *from)
                }
                _ if fate.fails => Happening::Failed(node),
                _ => Happening::Done(node, RoundValues { stop: value(fate), select: value(fate) }),
            });
        }
    }
    assert_eq!(state.free, description.machine, "something was not given back");
    Outcome { phases: state.phases, inputs }
}

fn value(fate: &Fate) -> Option<f64> {
    fate.value.map(f64::from)
}

fn fate() -> impl Strategy<Value = Fate> {
    (prop::bool::ANY, prop::bool::weighted(0.15), 0usize..2, prop::option::weighted(0.8, 0u8..4))
        .prop_map(|(is_hit, fails, losses, value)| Fate { is_hit, fails, losses, value })
}

/// A few nodes, a loop over some stages, a few nodes behind it.
fn description() -> impl Strategy<Value = Description> {
    let shape = (1usize..4, 1usize..5, 1usize..4, 1usize..5, prop::option::of(1usize..3), 1usize..5);
    (shape, prop::collection::vec((any::<usize>(), any::<usize>(), 1usize..6), 32)).prop_map(
        |((before, rounds, stages, after, patience, threads), random)| {
            let mut description = Description { machine: machine(threads), keep_going: true, ..Description::default() };
            let mut members: Vec<Vec<NodeIndex>> = Vec::new();
            let total = before + rounds * stages + after;
            for node in 0..total {
                let (first, second, threads) = random[node % random.len()];
                let place = node.checked_sub(before).filter(|inner| *inner < rounds * stages);
                let place = place.map(|inner| (0, inner / stages));
                let node_source = |node| Source::Node { node, output: String::new() };
                let mut sources = Vec::new();
                if node >= before + rounds * stages {
                    let stage = first % stages;
                    sources.push(Source::Loop {
                        in_loop: 0,
                        nodes: members.iter().map(|round| round[stage]).collect(),
                        output: String::new(),
                        pick: if second % 2 == 0 { Pick::Best } else { Pick::Last },
                    });
                } else if node > 0 {
                    sources.push(node_source(first % node));
                    sources.push(node_source(second % node));
                }
                if let Some((_, round)) = place {
                    members.resize(members.len().max(round + 1), Vec::new());
                    members[round].push(node);
                }
                description.nodes.push(DescribedNode {
                    sources,
                    place,
                    threads,
                    memory_bytes: threads as u64 * 7 % 11,
                    slots: (threads % 2 == 0).then(|| ("gpu".to_owned(), threads / 2)).into_iter().collect(),
                });
            }
            description.loops.push(DescribedLoop { rounds: members, patience });
            description
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_finishing_order_gives_one_result(
        description in description(),
        fates in prop::collection::vec(fate(), 32),
        orders in prop::collection::vec(prop::collection::vec(any::<usize>(), 16), 4),
    ) {
        let fates = &fates[..description.nodes.len().min(fates.len())];
        let results: Vec<Outcome> = orders.iter().map(|order| simulate(&description, fates, order)).collect();
        for result in &results[1..] {
            prop_assert_eq!(result, &results[0]);
        }
    }

    #[test]
    fn a_run_that_stops_at_a_failure_ends(
        mut description in description(),
        fates in prop::collection::vec(fate(), 32),
        order in prop::collection::vec(any::<usize>(), 16),
    ) {
        description.keep_going = false;
        simulate(&description, &fates[..description.nodes.len()], &order);
    }
}

#[test]
fn a_long_chain_needs_no_recursion() {
    let node = |node: usize| DescribedNode {
        sources: node.checked_sub(1).map(|node| Source::Node { node, output: String::new() }).into_iter().collect(),
        threads: 1,
        ..DescribedNode::default()
    };
    let description =
        Description { nodes: (0..3_000).map(node).collect(), machine: machine(1), ..Description::default() };
    let mut state = State::new(description);
    while let [Decision::Lookup(node)] = state.decide()[..] {
        state.tell(Happening::Done(node, RoundValues::default()));
    }
    assert!(state.is_over());
}
