use kiln_types::facts::MemoryModule;

use super::*;

const GOOD: &str = "11223344-5566-7788-99aa-bbccddeeff01";
const TURNED: &str = "44332211-6655-8877-99aa-bbccddeeff01";

fn mac(last: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, last])
}

fn machine(name: &str, macs: &[u8], uuid: Option<&str>, serial: Option<&str>) -> (String, Traits) {
    let mut machine = NewMachine::new(name, macs.iter().map(|last| mac(*last)));
    machine.uuid = uuid.map(str::to_owned);
    machine.serial = serial.map(str::to_owned);
    (name.to_owned(), Traits::known(&machine))
}

fn facts(uuid: &str, serial: &str, modules: &[&str]) -> Facts {
    let mut facts = Facts::default();
    facts.system.uuid = uuid.to_owned();
    facts.system.serial = serial.to_owned();
    let module =
        |serial: &&str| MemoryModule { serial: (*serial).to_owned(), ..Default::default() };
    facts.memory.modules = modules.iter().map(module).collect();
    facts
}

#[test]
fn uuids_that_name_no_box_are_worth_nothing() {
    for void in [
        "00000000-0000-0000-0000-000000000000",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "FEFEFEFE-FEFE-FEFE-FEFE-FEFEFEFEFEFE",
        "03000200-0400-0500-0006-000700080009",
        "00020003-0004-0005-0006-000700080009",
        "12345678-1234-5678-90AB-CDDEEFAABBCC",
    ] {
        assert_eq!(telling_uuid(void), None, "{void}");
    }
    assert_eq!(telling_uuid("{11223344-5566-7788-99AA-BBCCDDEEFF01}").as_deref(), Some(GOOD));
    assert_eq!(telling_uuid("112233445566778899aabbccddeeff01").as_deref(), Some(GOOD));
    assert_eq!(other_order(GOOD).as_deref(), Some(TURNED));
}

#[test]
fn what_firmware_says_where_nobody_filled_in_a_number_is_worth_nothing() {
    for void in [
        "",
        " ",
        "To Be Filled By O.E.M.",
        "Default string",
        "0123456789",
        "123456789",
        "0000000",
        "........",
        "xxxx",
        "None",
        "N/A",
        "Not Specified",
        "a\u{7}b",
        &"9".repeat(200),
        &"ab".repeat(100),
        "\u{202e}",
        "---",
    ] {
        assert_eq!(telling_text(void), None, "{void:?}");
    }
    assert_eq!(telling_text(" CZJ1234 ").as_deref(), Some("CZJ1234"));
}

#[test]
fn hostile_texts_are_neither_a_uuid_nor_a_crash() {
    for text in [
        "",
        "-",
        "ä".repeat(18).as_str(),
        "0".repeat(100_000).as_str(),
        "g1223344-5566-7788-99aa-bbccddeeff01",
        "11223344-5566-7788-99aa-bbccddeeff0",
        "\0\0\0\0",
        "{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{",
    ] {
        assert_eq!(telling_uuid(text), None);
        assert_eq!(other_order(text), None);
    }
}

#[test]
fn a_new_card_in_a_known_machine_is_proposed_as_such() {
    let known = Recogniser::new([
        machine("node-16", &[1], None, None),
        machine("node-17", &[2], Some(GOOD), Some("S-77")),
    ]);
    for uuid in [GOOD, TURNED] {
        let found = known.recognise(&Traits::seen(mac(9), Some(uuid)));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            found[0].to_string(),
            "may be node-17 with a new network card: the same UUID (50 points)"
        );
        assert!(found[0].new_card && !found[0].is_match());
    }
    let more = Traits::seen(mac(9), None).with_facts(&facts(GOOD, "S-77", &[]));
    assert_eq!(known.recognise(&more)[0].points, 75);
    assert!(known.recognise(&Traits::seen(mac(9), None)).is_empty());
    let same = known.recognise(&Traits::seen(mac(2), Some(GOOD)));
    assert!(same[0].is_match() && !same[0].new_card, "{same:?}");
}

#[test]
fn a_number_that_two_machines_have_names_neither() {
    let known = Recogniser::new([
        machine("a", &[1], Some(GOOD), Some("S-1")),
        machine("b", &[2], Some(TURNED), Some("S-1")),
        machine("c", &[3], None, Some("S-2")),
    ]);
    let seen = Traits::seen(mac(9), Some(GOOD)).with_facts(&facts("", "S-1", &[]));
    assert_eq!(known.recognise(&seen), []);
    let seen = Traits::seen(mac(9), Some(GOOD)).with_facts(&facts("", "S-2", &[]));
    assert_eq!(known.recognise(&seen)[0].machine, "c");
}

#[test]
fn memory_modules_that_moved_on_count_by_their_share() {
    let (name, traits) = machine("a", &[1], None, None);
    let traits = traits.with_facts(&facts("", "", &["D1", "D2", "D3", "D4"]));
    let known = Recogniser::new([(name, traits)]);
    let seen = |modules: &[&str]| Traits::seen(mac(9), None).with_facts(&facts("", "", modules));
    let points = |modules: &[&str]| known.recognise(&seen(modules)).first().map(|l| l.points);
    assert_eq!(points(&["D1", "D2", "D3", "D4"]), Some(100));
    assert_eq!(points(&["D1", "X2", "X3", "X4"]), Some(25));
    assert_eq!(points(&["None", "00000000"]), None);
}

#[test]
fn a_crowd_with_one_number_costs_no_more_than_a_few_comparisons() {
    let crowd = (0..200_u8).map(|n| machine(&format!("n{n}"), &[n], Some(GOOD), None));
    let known = Recogniser::new(crowd);
    assert!(known.recognise(&Traits::seen(Mac::new([4; 6]), Some(GOOD))).is_empty());
    assert_eq!(known.recognise(&Traits::seen(mac(7), Some(GOOD))).len(), 1);
}
