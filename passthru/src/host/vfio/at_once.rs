//! Calls that mostly wait, made at the same time.

use std::thread::{self, Builder};

/// Does `one` for each number below `count`, each on a thread of its own, and something else meanwhile. What there is no thread
/// for is done afterwards.
pub fn at_once<T: Send, R>(
    count: usize,
    one: impl Fn(usize) -> T + Sync,
    meanwhile: impl FnOnce() -> R,
) -> (Vec<T>, R) {
    let one = &one;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| Builder::new().name("open".to_owned()).spawn_scoped(scope, move || one(number)))
            .collect();
        let result = meanwhile();
        let done = threads.into_iter().enumerate().map(|(number, thread)| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(_) => one(number),
        });
        (done.collect(), result)
    })
}

/// All that there is, or the number of the first that failed, and why.
pub fn all_or_first_error<T, E>(results: Vec<Option<Result<T, E>>>) -> Result<Vec<T>, (usize, E)> {
    let numbered = results.into_iter().flatten().enumerate();
    numbered.map(|(number, result)| result.map_err(|error| (number, error))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn all_of_them_run_at_the_same_time() {
        // They would wait for ever otherwise.
        let barrier = Barrier::new(4);
        let (done, meanwhile) = at_once(
            3,
            |number| {
                barrier.wait();
                number * 2
            },
            || barrier.wait().is_leader(),
        );
        assert_eq!(done, [0, 2, 4]);
        let _ = meanwhile;
        assert_eq!(at_once(0, |number| number, || 7), (vec![], 7));
    }

    #[test]
    fn the_first_error_counts() {
        let ok = |value| Some(Ok::<_, &str>(value));
        assert_eq!(all_or_first_error(vec![ok(1), ok(2)]), Ok(vec![1, 2]));
        assert_eq!(all_or_first_error(vec![ok(1), Some(Err("b")), Some(Err("c"))]), Err((1, "b")));
    }
}
