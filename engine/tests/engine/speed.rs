//! A run in which nothing is to be done.

use std::time::Instant;

use crate::support::Project;

#[test]
fn sixty_cached_stages_take_no_time_to_speak_of() {
    let project = Project::new();
    let mut text = "[stages.s0]\nkind = \"numbers\"\nvalues = [1, 2, 3]\n".to_owned();
    for stage in 1..60 {
        let before = stage - 1;
        let more =
            format!("[stages.s{stage}]\nkind = \"double\"\nrows = \"s{before}\"\ntag = \"TAG\"\noffset = {stage}\n");
        text += &more;
    }
    project.run(&text);
    let started = Instant::now();
    let ran = project.run(&text);
    let elapsed = started.elapsed();
    assert_eq!(ran.computed, 0);
    // Measured 12 ms on a laptop's two cores; the rest is for slow machines and debug builds.
    assert!(elapsed.as_millis() < 1000, "{elapsed:?}");
}
