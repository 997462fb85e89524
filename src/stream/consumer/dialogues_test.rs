//! What is done with consumers, step by step, as `dialogues.golden` says that the reference does it.
//!
//! `dialogues.txt` is the script; the recording repeats each line behind `> `, then the answer behind `= `, then what clients saw.
//! `scripts/record_consumers.py` makes it; `CONSUMER_CASE=pause` plays the cases of that name only.

use super::config::Retention;
use super::rig::{Clients, Rig};

/// Names what differs each time: ids, pins, the letters of flow control subjects, times.
fn normalised(line: &str, pins: &mut Vec<String>) -> String {
    let mut line = line.to_owned();
    for (before, name) in [("\"id\":\"", "ID"), ("\"timestamp\":\"", "T"), ("\"pause_until\":\"20", "T")] {
        if let Some((head, tail)) = line.clone().split_once(before) {
            let head_end = before.trim_end_matches("20");
            line = format!("{head}{head_end}{name}{}", &tail[tail.find('"').unwrap()..]);
        }
    }
    if let Some((head, tail)) = line.clone().split_once("\"ack_time\":") {
        line =
            format!("{head}\"ack_time\":N{}", tail.trim_start_matches(|digit: char| digit.is_ascii_digit()));
    }
    for marker in ["Nats-Pin-Id: ", "\"pinned_id\":\""] {
        if let Some(pin) = line.split_once(marker).and_then(|(_, tail)| tail.get(..22)).map(str::to_owned)
            && !pins.contains(&pin)
        {
            pins.push(pin);
        }
    }
    for (at, pin) in pins.iter().enumerate() {
        line = line.replace(pin.as_str(), &format!("PIN{}", at + 1));
    }
    if let Some((head, tail)) = line.clone().split_once("$JS.FC.S.P.") {
        line = format!("{head}$JS.FC.S.P.XXXX{}", &tail[4..]);
    }
    line
}

/// One case on a rig.
struct Player {
    rig: Rig,
    acks: Vec<String>,
    flows: Vec<String>,
    pins: Vec<String>,
}

impl Player {
    fn new(retention: Retention) -> Player {
        let mut rig = Rig::new("S", &["s.>"], retention);
        rig.clients = Clients { events: true, ..Clients::default() };
        Player { rig, acks: Vec::new(), flows: Vec::new(), pins: Vec::new() }
    }

    /// Does what a line of the script says; the answer, if there is one.
    fn play(&mut self, line: &str) -> Option<String> {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split(' ').collect();
        let tail = |count: usize| words.get(count..).unwrap_or_default().join(" ");
        let rig = &mut self.rig;
        let mut quiet_ms = 60;
        let described = |answer: Option<String>| {
            let value: serde_json::Value = serde_json::from_str(&answer.unwrap()).unwrap();
            value["error"]["description"].as_str().unwrap_or("ok").to_owned()
        };
        let answer = match command {
            "stream" => Some("ok".to_owned()),
            "pub" => {
                let (header, payload) = match tail(1).strip_prefix('[').and_then(|tail| tail.split_once("] "))
                {
                    Some((header, payload)) => (format!("NATS/1.0\r\n{header}\r\n\r\n"), payload.to_owned()),
                    None => (String::new(), tail(1)),
                };
                if rig.facts.retention != Retention::Interest
                    || rig.consumers.filters().any(|filters| filters.matches(words[0].as_bytes()))
                {
                    rig.publish_with(words[0], &header, &payload);
                } else {
                    rig.skip();
                }
                None
            }
            "create" => {
                let answer = rig.create(words[0], &tail(1));
                Some(described(Some(answer)))
            }
            "api" => {
                let soon = {
                    let mut text = Vec::new();
                    super::super::time::write(&mut text, rig.now + 700_000_000);
                    String::from_utf8(text).unwrap()
                };
                let body = tail(1).replace("$SOON", &soon);
                Some(described(rig.request(&format!("$JS.API.CONSUMER.{}", words[0]), &body)))
            }
            "pull" => {
                let mut body = tail(2);
                for (at, pin) in self.pins.iter().enumerate() {
                    body = body.replace(&format!("PIN{}", at + 1), pin);
                }
                rig.pull(words[0], &body, words[1]);
                None
            }
            "ack" | "ackraw" => {
                let subject = match words[0].parse::<usize>() {
                    Ok(number) => self.acks[number - 1].clone(),
                    Err(_) => words[0].to_owned(),
                };
                let reply = words.get(1).filter(|reply| **reply != "-").unwrap_or(&"");
                rig.ack(&subject, &tail(2), reply);
                None
            }
            "fc" => {
                let subject = self.flows[words[0].parse::<usize>().unwrap() - 1].clone();
                let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
                rig.flow_response(&subject, number(1).zip(number(2)));
                None
            }
            "wait" => {
                quiet_ms = rest.parse().unwrap();
                None
            }
            "info" => Some(rig.info(rest)),
            "times" => Some(rig.times(rest)),
            "remove" => {
                rig.remove(rest.parse().unwrap());
                None
            }
            "purge" => {
                let value: serde_json::Value =
                    serde_json::from_str(if rest.is_empty() { "{}" } else { rest }).unwrap();
                rig.purge(value["seq"].as_u64().unwrap_or(rig.store.state().last_seq + 1));
                None
            }
            "state" => {
                let state = rig.store.state();
                Some(format!("{} {}-{}", state.messages, state.first_seq, state.last_seq))
            }
            "hear" | "deaf" if words[0].starts_with("d.") => {
                let name = words.join(" ");
                if command == "hear" {
                    rig.clients.heard.insert(name)
                } else {
                    rig.clients.heard.remove(&name)
                };
                rig.check_listeners();
                None
            }
            "deaf" => {
                rig.clients.deaf.insert(rest.to_owned());
                None
            }
            _ => panic!("{line}"),
        };
        rig.pass(quiet_ms * 1_000_000);
        answer
    }

    /// What clients saw, events last.
    fn told(&mut self) -> Vec<String> {
        for seen in &self.rig.clients.seen {
            if seen.reply.starts_with("$JS.ACK.") {
                self.acks.push(seen.reply.clone());
            } else if seen.reply.starts_with("$JS.FC.") {
                self.flows.push(seen.reply.clone());
            }
        }
        let lines = self.rig.told();
        let mut lines: Vec<String> =
            lines.iter().map(|line| format!("  {}", normalised(line, &mut self.pins))).collect();
        lines.sort_by_key(|line| line.starts_with("  $JS.EVENT").then(|| line.clone()));
        lines
    }
}

#[test]
fn consumers_do_step_by_step_what_the_reference_does() {
    let script = include_str!("dialogues.txt");
    let golden = include_str!("dialogues.golden");
    assert_eq!(
        script.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count(),
        golden.lines().filter(|line| line.starts_with("case ") || line.starts_with("> ")).count(),
        "the recording is of another script"
    );
    let only = std::env::var("CONSUMER_CASE").unwrap_or_default();
    let mut wrong = Vec::new();
    for case in golden.split("case ").filter(|case| !case.is_empty() && case.contains(&only)) {
        let (name, steps) = case.split_once('\n').unwrap();
        let retention = match steps.lines().next() {
            Some("> stream interest") => Retention::Interest,
            Some("> stream workqueue") => Retention::WorkQueue,
            _ => Retention::Limits,
        };
        let mut player = Player::new(retention);
        let mut differs = false;
        let mut shown = String::new();
        for step in steps.split("> ").filter(|step| !step.is_empty()) {
            let mut lines = step.lines();
            let command = lines.next().unwrap();
            let expected: Vec<&str> = lines.collect();
            let answer = player.play(command);
            let mut got: Vec<String> = answer.map(|answer| format!("= {answer}")).into_iter().collect();
            got.extend(player.told());
            shown.push_str(&format!("> {command}\n"));
            if got == expected {
                shown.push_str(&got.iter().map(|line| format!("{line}\n")).collect::<String>());
            } else {
                differs = true;
                shown.push_str(&format!(
                    "--- reference\n{}\n--- here\n{}\n---\n",
                    expected.join("\n"),
                    got.join("\n")
                ));
            }
        }
        if differs {
            wrong.push(format!("case {name}\n{shown}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
