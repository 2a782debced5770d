use casemate_ticket::bytes::Digest;
use casemate_ticket::json;

use super::*;

const SAME: [u8; 32] = [7; 32];

fn filters() -> Vmm {
    let digest = Digest(SAME);
    Vmm { digest, filter_control: digest, filter_io: digest, filter_vcpu: digest }
}

fn started() -> Vec<u8> {
    FromVmm::Started { control: SAME, io: SAME, vcpu: SAME }.encode().as_bytes().to_vec()
}

fn encode(message: &FromVmm<'_>) -> Vec<u8> {
    message.encode().as_bytes().to_vec()
}

fn hear(template: bool, packets: &[Vec<u8>]) -> (Said, Verdict) {
    let mut said = Said::default();
    let mut verdict = Verdict::Fine;
    for packet in packets {
        verdict = said.hear(packet, &filters(), template);
        if matches!(verdict, Verdict::Kill(_)) {
            break;
        }
    }
    (said, verdict)
}

#[test]
fn takes_the_messages_of_a_launch_in_their_order() {
    let ready = encode(&FromVmm::Ready { restored: true });
    let exit = encode(&FromVmm::Exit(Exit::Code(3)));
    assert_eq!(hear(false, &[started()]).1, Verdict::Fine);
    assert_eq!(hear(false, &[started(), ready.clone()]).1, Verdict::Ready);
    assert_eq!(hear(false, &[started(), ready.clone(), exit.clone()]).1, Verdict::Ending);
    let kill = Verdict::Kill(Killed::Protocol);
    for wrong in [
        vec![ready.clone()],
        vec![exit.clone()],
        vec![started(), started()],
        vec![started(), ready.clone(), ready],
        vec![started(), exit.clone(), exit],
        vec![started(), encode(&FromVmm::Template { state_size: 1, memory_size: 1 })],
        vec![vec![]],
        vec![vec![99]],
        vec![[started(), vec![0]].concat()],
    ] {
        assert_eq!(hear(false, &wrong).1, kill, "{wrong:?}");
    }
}

#[test]
fn takes_counters_once_for_each_time_they_are_asked_for() {
    let metrics = encode(&FromVmm::Metrics(Metrics::NONE));
    let kill = Verdict::Kill(Killed::Protocol);
    assert_eq!(hear(false, &[started(), metrics.clone()]).1, kill, "nobody asked");
    let (mut said, _) = hear(false, &[started()]);
    said.metrics = Question::Asked;
    assert_eq!(said.hear(&metrics, &filters(), false), Verdict::Fine);
    assert_eq!(said.metrics, Question::Answered(Box::new(Metrics::NONE)));
    assert_eq!(said.hear(&metrics, &filters(), false), kill, "asked once");
    let mut said = Said { metrics: Question::Asked, ..Said::default() };
    assert_eq!(said.hear(&metrics, &filters(), false), kill, "before it has started");
}

#[test]
fn takes_one_template_of_a_builder_and_no_pod_messages() {
    let template = encode(&FromVmm::Template { state_size: 5, memory_size: 6 });
    assert_eq!(
        hear(true, std::slice::from_ref(&template)).1,
        Verdict::Template { state_size: 5, memory_size: 6 }
    );
    let kill = Verdict::Kill(Killed::Protocol);
    let failure = encode(&FromVmm::Failure { reason: Reason::BootTimeout, text: "late" });
    assert_eq!(hear(true, std::slice::from_ref(&failure)).1, Verdict::Ending);
    assert_eq!(hear(true, &[template.clone(), template.clone()]).1, kill);
    assert_eq!(hear(true, &[failure, template]).1, kill);
    assert_eq!(hear(true, &[started(), encode(&FromVmm::Exit(Exit::Code(0)))]).1, kill);
    assert_eq!(hear(true, &[started(), encode(&FromVmm::Ready { restored: false })]).1, kill);
}

#[test]
fn kills_a_vmm_whose_filters_differ_in_any_of_the_three() {
    for (control, io, vcpu) in [([1; 32], SAME, SAME), (SAME, [1; 32], SAME), (SAME, SAME, [1; 32])]
    {
        let packet = encode(&FromVmm::Started { control, io, vcpu });
        assert_eq!(hear(false, &[packet]).1, Verdict::Kill(Killed::Filters));
    }
}

fn end(packets: &[Vec<u8>], killed: Option<Killed>, status: Status) -> (String, bool) {
    let (said, _) = hear(false, packets);
    let exit = conclude(&Facts { said: &said, killed, status, oom: false, syscall: Some(42) });
    (format!("{} {} {}", exit.how, exit.value, exit.cause), exit.guest_reported)
}

#[test]
fn believes_the_kernel_before_the_vmm_and_the_vmm_before_the_guest() {
    let exit = encode(&FromVmm::Exit(Exit::Code(3)));
    let oom = encode(&FromVmm::Exit(Exit::Oom(9)));
    let failure = encode(&FromVmm::Failure { reason: Reason::Verity, text: "block 7" });
    let nine = Status::Signal(9);
    let line = |text: &str, guest: bool| (text.to_owned(), guest);
    let said_exit = [started(), exit.clone()];
    assert_eq!(end(&said_exit, None, Status::Code(0)), line("code 3 APP_EXIT", true));
    assert_eq!(end(&said_exit, Some(Killed::Lingering), nine), line("code 3 APP_EXIT", true));
    assert_eq!(end(&said_exit, Some(Killed::Asked), nine), line("code 3 APP_EXIT", true));
    assert_eq!(end(&[started(), oom], None, Status::Code(0)), line("oom 9 APP_OOM", true));
    assert_eq!(end(&said_exit, None, Status::Signal(31)), line("vmm 31 VMM_SECCOMP", false));
    assert_eq!(end(&said_exit, Some(Killed::Protocol), nine), line("vmm 9 VMM_PROTOCOL", false));
    let both = [started(), exit, failure.clone()];
    assert_eq!(end(&both, None, Status::Code(1)), line("failure 9 VERITY", false));
    assert_eq!(end(&[failure], None, Status::Code(1)), line("failure 9 VERITY", false));
    assert_eq!(end(&[], Some(Killed::Asked), nine), line("vmm 9 KILLED", false));
    assert_eq!(end(&[], Some(Killed::StopTimeout), nine), line("vmm 9 STOP_TIMEOUT", false));
    assert_eq!(end(&[], Some(Killed::BootTimeout), nine), line("vmm 9 BOOT_TIMEOUT", false));
    assert_eq!(end(&[], Some(Killed::Shutdown), nine), line("vmm 9 SPAWN_STOPPED", false));
    assert_eq!(end(&[], None, Status::Signal(11)), line("vmm 11 VMM_SIGNAL", false));
    assert_eq!(end(&[], None, Status::Code(0)), line("vmm 0 VMM_EXIT", false));
}

#[test]
fn names_the_call_a_filter_stopped_and_want_of_memory() {
    let said = Said::default();
    let mut facts = Facts {
        said: &said,
        killed: None,
        status: Status::Signal(31),
        oom: false,
        syscall: Some(42),
    };
    let text = conclude(&facts).text.unwrap();
    assert!(text.contains("connect (42)"), "{text}");
    facts.syscall = None;
    assert!(conclude(&facts).text.unwrap().contains("a system call"));
    facts = Facts { status: Status::Signal(9), oom: true, ..facts };
    assert_eq!(conclude(&facts).cause, "VMM_OOM");
    assert_eq!(
        json::write(&conclude(&Facts { oom: false, ..facts }).to_value()),
        r#"{"cause":"VMM_SIGNAL","guest_reported":false,"how":"vmm","text":"the VMM was killed by SIGKILL","value":9}"#
    );
}

#[test]
fn goes_on_with_what_was_said_to_the_spawn_before() {
    let ready = encode(&FromVmm::Ready { restored: true });
    let exit = encode(&FromVmm::Exit(Exit::Code(3)));
    let metrics = encode(&FromVmm::Metrics(Metrics::NONE));
    let kill = Verdict::Kill(Killed::Protocol);
    let replay = |packets: &[Vec<u8>]| Said::replay(packets, &filters());
    let heard = vec![started(), ready.clone()];
    let mut said = replay(&heard).unwrap();
    assert_eq!(said.heard, heard);
    assert!(!said.is_ending());
    // The last may still be in the socket: once.
    assert_eq!(said.hear(&ready, &filters(), false), Verdict::Fine);
    assert_eq!(said.heard, heard);
    assert_eq!(said.clone().hear(&ready, &filters(), false), kill);
    assert_eq!(said.hear(&exit, &filters(), false), Verdict::Ending);
    assert!(replay(&said.heard).unwrap().is_ending());
    // So may an answer of the guest's, which is nobody's: once, and it is not said again to the next.
    let resized = encode(&FromVmm::Resized(Resized { errno: 0, bytes: 8192 }));
    let mut said = replay(&heard).unwrap();
    assert_eq!(said.hear(&resized, &filters(), false), Verdict::Fine);
    assert_eq!(said.resized, Question::None);
    assert_eq!(said.heard, heard);
    assert_eq!(said.hear(&resized, &filters(), false), kill);
    // Counters may come that it asked for: once.
    let mut said = replay(&heard).unwrap();
    assert_eq!(said.hear(&metrics, &filters(), false), Verdict::Fine);
    assert_eq!(said.clone().hear(&metrics, &filters(), false), kill);
    assert_eq!(said.hear(&ready, &filters(), false), kill, "no longer the first");
    for wrong in [vec![ready], vec![exit], vec![vec![]], vec![started(), started()]] {
        assert!(replay(&wrong).is_none(), "{wrong:?}");
    }
}

#[test]
fn an_end_of_which_nothing_is_known_is_told_as_such() {
    let said = Said::default();
    let facts =
        |killed, oom| Facts { said: &said, killed, status: Status::Unknown, oom, syscall: None };
    let cause = |killed, oom| conclude(&facts(killed, oom)).cause;
    assert_eq!(cause(None, false), "VMM_END_UNKNOWN");
    assert_eq!(cause(None, true), "VMM_OOM");
    assert_eq!(cause(Some(Killed::Asked), false), "KILLED");
    let (said, _) = hear(false, &[started(), encode(&FromVmm::Exit(Exit::Code(3)))]);
    let facts = Facts { said: &said, ..facts(None, false) };
    assert_eq!(conclude(&facts).cause, "APP_EXIT");
}

#[test]
fn reads_the_end_it_wrote() {
    let said = Said::default();
    let status = Status::Code(7);
    let exit = conclude(&Facts { said: &said, killed: None, status, oom: false, syscall: None });
    for exit in [exit, guest_exit(Exit::Signal(15)), PodExit::not_taken_over("a reason")] {
        assert_eq!(PodExit::read(&exit.to_value()), Ok(exit));
    }
    for (why, word) in KILLED {
        assert_eq!((Killed::of_word(word), why.word()), (Some(why), word));
    }
}
