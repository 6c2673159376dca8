//! The search: all choices of a scenario, one run after the other.

use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use xen_abi::DomId;
use zooid_fork_plan::id::PvmId;
use zooid_ipc::object::hooks;

use super::{
    Action, Body, Deed, End, Fixed, Member, Program, Routine, STRANGER, Scenario, Sim, Thread, Users, Way, World,
    is_over, step, world,
};

/// Makes all choices that there are; how many states there were.
pub fn explore(name: &str, mut scenario: impl FnMut() -> Scenario) -> usize {
    let mut seen = HashSet::new();
    let mut choices: Vec<(usize, usize)> = Vec::new();
    let mut stacks = Vec::new();
    let mut users = Users::default();
    let mut replays = 0_u64;
    let mut is_logged = false;
    loop {
        replays += 1;
        let first = World { choices, users, is_logged, ..World::default() };
        world(|world| *world = first);
        let mut routines = Vec::new();
        let trouble = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run(scenario(), &mut seen, &mut routines, &mut stacks);
        }));
        clear_away(routines, &mut stacks);
        if let Err(trouble) = trouble {
            if is_logged {
                eprintln!("{name}, replay {replays}:\n{}", world(|world| world.log.join("\n")));
                std::panic::resume_unwind(trouble);
            }
            // Once more, with what is done.
            is_logged = true;
            (choices, users) = world(|world| (std::mem::take(&mut world.choices), std::mem::take(&mut world.users)));
            continue;
        }
        (choices, users) = world(|world| (std::mem::take(&mut world.choices), std::mem::take(&mut world.users)));
        if std::mem::take(&mut users.has_grown) {
            choices.clear();
            seen.clear();
            continue;
        }
        while choices.last().is_some_and(|(chosen, count)| chosen + 1 == *count) {
            choices.pop();
        }
        match choices.last_mut() {
            Some((chosen, _)) => *chosen += 1,
            None => break,
        }
    }
    eprintln!("{name}: {} states, {replays} replays", seen.len());
    seen.len()
}

fn clear_away(routines: Vec<Routine>, stacks: &mut Vec<DefaultStack>) {
    world(|world| world.over = true);
    for mut routine in routines {
        if !routine.done() {
            routine.force_unwind();
        }
        stacks.push(routine.into_stack());
    }
    let members = world(|world| std::mem::take(&mut world.members));
    drop(members);
}

fn spawn(
    member: usize,
    way: Way,
    is_application: bool,
    body: Body,
    routines: &mut Vec<Routine>,
    stacks: &mut Vec<DefaultStack>,
) -> usize {
    let thread = world(|world| {
        let yielder = Cell::new(std::ptr::null());
        world.threads.push(Thread { member, way, masks: 0, woken: false, is_application, yielder });
        world.threads.len() - 1
    });
    let stack = stacks.pop().unwrap_or_default();
    routines.push(Coroutine::with_stack(stack, move |yielder: &Yielder<(), ()>, ()| {
        world(|world| world.threads[thread].yielder.set(yielder));
        body();
    }));
    thread
}

/// The body of a member's system threads: handlers of events, and news.
fn serve(work: fn(), is_next: fn(&mut Member) -> bool) {
    loop {
        if is_over() {
            return;
        }
        let go = world(|world| {
            let (thread, member) = (world.thread, world.member);
            let go = is_next(&mut world.members[member]);
            if !go {
                world.threads[thread].way = Way::Idle;
            }
            go
        });
        if go {
            work();
        } else {
            step();
        }
    }
}

fn begin(place: usize, program: Program, routines: &mut Vec<Routine>, stacks: &mut Vec<DefaultStack>) {
    world(|world| {
        world.is_setup = true;
        world.member = place;
        if place >= world.first_later {
            let number = usize::from(world.members[place].number);
            world.users.touch(STRANGER, usize::MAX, 8 * number, 8, true);
        }
        world.members[place].alive = Some(true);
    });
    let bodies = program();
    world(|world| world.is_setup = false);
    for body in bodies {
        spawn(place, Way::Ready, true, body, routines, stacks);
    }
    let handle: Body = Box::new(|| {
        serve(zooid_ipc::ring::<Sim>, |member| std::mem::take(&mut member.pending));
    });
    let handler = spawn(place, Way::Idle, false, handle, routines, stacks);
    world(|world| {
        world.members[place].handler = handler;
        // The handler runs with events masked.
        world.threads[handler].masks = 1;
    });
    let news: Body = Box::new(|| serve(hooks::news::<Sim>, |member| std::mem::take(&mut member.has_news)));
    spawn(place, Way::Idle, false, news, routines, stacks);
}

fn run(scenario: Scenario, seen: &mut HashSet<u64>, routines: &mut Vec<Routine>, stacks: &mut Vec<DefaultStack>) {
    let Scenario { members, later, mortal, absences, hostile, judge } = scenario;
    let fixed = Fixed { mortal, hostile: hostile.0, deeds: hostile.1 };
    world(|world| {
        (world.absences, world.first_later) = (absences, members.len());
        for (place, (number, _)) in members.iter().chain(&later).enumerate() {
            world.members.push(Member {
                number: *number,
                id: PvmId::new(DomId(place as u16 + 1), 1).expect("it is not 0"),
                alive: None,
                told: false,
                pending: false,
                has_news: false,
                takes_part: false,
                stores: Vec::new(),
                history: 0,
                state: Rc::default(),
                anonymous: 0,
                handler: 0,
                running: 0,
            });
        }
    });
    let count = members.len();
    for (place, (_, program)) in members.into_iter().enumerate() {
        begin(place, program, routines, stacks);
    }
    let mut later: Vec<_> = later.into_iter().map(|(_, program)| Some(program)).collect();
    loop {
        let actions = world(|world| world.actions(&fixed));
        if actions.is_empty() {
            break;
        }
        let is_old = world(|world| actions.len() > 1 && world.at == world.choices.len() && !seen.insert(world.key()));
        if is_old {
            return;
        }
        let action = world(|world| {
            let action = actions[world.choose(actions.len())];
            if world.is_logged && !matches!(action, Action::Run(_)) {
                world.log.push(format!("{action:?}"));
            }
            action
        });
        match action {
            Action::Join(place) => {
                let program = later[place - count].take().expect("it joins once");
                begin(place, program, routines, stacks);
            }
            Action::Run(thread) => resume(thread, &mut routines[thread]),
            action => world(|world| world.perform(action, &fixed)),
        }
    }
    let end = world(|world| {
        let waits =
            |place: usize, thread: &Thread| thread.member == place && thread.is_application && thread.way != Way::Done;
        let all = 0..world.members.len();
        End {
            waiting: all
                .clone()
                .filter(|place| world.members[*place].alive == Some(true))
                .filter(|place| world.threads.iter().any(|thread| waits(*place, thread)))
                .collect(),
            killed: all.filter(|place| world.members[*place].alive == Some(false)).collect(),
        }
    });
    judge(&end);
}

fn resume(thread: usize, routine: &mut Routine) {
    world(|world| {
        world.thread = thread;
        world.member = world.threads[thread].member;
        let member = world.member;
        world.members[member].running = thread;
        world.see(member, &thread);
    });
    if let CoroutineResult::Return(()) = routine.resume(()) {
        world(|world| world.threads[thread].way = Way::Done);
    }
}

impl World {
    fn perform(&mut self, action: Action, scenario: &Fixed) {
        match action {
            Action::Flush(member) => self.flush_one(member),
            Action::Deliver(member) => {
                let handler = self.members[member].handler;
                self.threads[handler].way = Way::Ready;
                self.members[member].running = handler;
                self.see(member, &"an event");
            }
            Action::Expire(thread) => {
                self.threads[thread].way = Way::Ready;
                self.threads[thread].woken = false;
            }
            Action::Kill(member) => self.members[member].alive = Some(false),
            Action::Tell(ended) => {
                self.flush(ended);
                self.users.touch(STRANGER, usize::MAX, 8 * usize::from(self.members[ended].number), 8, true);
                self.members[ended].told = true;
                let living = |member: &Member| member.alive == Some(true) && member.takes_part;
                let others: Vec<usize> = (0..self.members.len()).filter(|it| living(&self.members[*it])).collect();
                others.into_iter().for_each(|member| self.wake_news(member));
            }
            Action::Hostile(deed) => {
                self.deeds += 1;
                match scenario.hostile[deed] {
                    Deed::Write { object, offset, octets, value } => {
                        self.users.touch(STRANGER, object, offset, octets, true);
                        self.objects[object].write(offset, &value.to_le_bytes()[..octets]);
                    }
                    Deed::Ring { member } => self.members[member].pending = true,
                }
            }
            Action::Run(_) | Action::Join(_) => unreachable!("done by who has the coroutines"),
        }
    }
}
