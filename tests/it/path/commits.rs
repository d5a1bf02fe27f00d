//! How many transactions a call commits: two, and one more for each request, review and take-over.

use super::{
    lost_answers::lose_before_effect,
    run::{BO, READ, Run, refund},
    world::{Folder, on_both_engines},
};

async fn an_allowed_call_commits_twice_and_what_people_do_once_more() {
    let world = Folder::proposing(&[READ, &refund(50_000)]).world().await;
    let mut run = Run::proposed(&world).await;
    let mut last = world.store.commits();
    let mut spent = || {
        let now = world.store.commits();
        now - std::mem::replace(&mut last, now)
    };
    run.returned("t1.0").await;
    assert_eq!(spent(), 2, "decision and intent, then the outcome");
    run.returned("t1.0").await;
    assert_eq!(spent(), 0, "the same again");
    let request = run.asked("t1.1").await.remove(0);
    assert_eq!(spent(), 1, "the request");
    run.approve(&request, BO).await;
    assert_eq!(spent(), 1, "the review");
    run.returned("t1.1").await;
    assert_eq!(spent(), 2, "the call that was released");
}

async fn a_call_that_is_taken_over_commits_once_more() {
    let world = Folder::proposing(&[READ]).server("exec $SERVER").world().await;
    let mut run = Run::proposed(&world).await;
    let before = world.store.commits();
    lose_before_effect(&world, &mut run).await;
    world.run_out("t1.0", 1).await;
    run.returned("t1.0").await;
    assert_eq!(world.store.commits() - before, 3, "two claims and an outcome");
}

on_both_engines! {
    an_allowed_call_commits_twice_and_what_people_do_once_more
    a_call_that_is_taken_over_commits_once_more
}
