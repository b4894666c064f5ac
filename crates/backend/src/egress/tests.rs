use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn network(text: &str, bits: u8) -> Network {
    Network { address: address(text), bits }
}

/// The first and the last address of each network that no webhook may reach, and the public neighbours.
const V4: [(&str, &str); 15] = [
    ("0.0.0.0", "0.255.255.255"),
    ("10.0.0.0", "10.255.255.255"),
    ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"),
    ("169.254.0.0", "169.254.255.255"),
    ("172.16.0.0", "172.31.255.255"),
    ("192.0.0.0", "192.0.0.255"),
    ("192.0.2.0", "192.0.2.255"),
    ("192.88.99.0", "192.88.99.255"),
    ("192.168.0.0", "192.168.255.255"),
    ("198.18.0.0", "198.19.255.255"),
    ("198.51.100.0", "198.51.100.255"),
    ("203.0.113.0", "203.0.113.255"),
    ("224.0.0.0", "239.255.255.255"),
    ("240.0.0.0", "255.255.255.255"),
];
const PUBLIC_V4: [&str; 14] = [
    "1.0.0.0",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "198.20.0.0",
    "203.0.114.1",
    "223.255.255.255",
];

/// Writes an address of IPv4 in every way in which one of IPv6 leads to it.
fn forms(v4: Ipv4Addr) -> [IpAddr; 5] {
    let [a, b, c, d] = v4.octets().map(u16::from);
    let (high, low) = (a << 8 | b, c << 8 | d);
    [
        v4.into(),
        Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low).into(),
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low).into(),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low).into(),
        Ipv6Addr::new(0x2002, high, low, 1, 2, 3, 4, 5).into(),
    ]
}

#[test]
fn special_addresses_are_refused_in_every_form_and_their_neighbours_are_not() {
    let egress = Egress::default();
    for ends in V4 {
        for end in [ends.0, ends.1] {
            for form in forms(end.parse().unwrap()) {
                assert!(!egress.allows(form), "{end} as {form}");
            }
        }
    }
    for public in PUBLIC_V4 {
        for form in forms(public.parse().unwrap()) {
            assert!(egress.allows(form), "{public} as {form}");
        }
    }
}

#[test]
fn only_unicast_of_ipv6_is_called() {
    let egress = Egress::default();
    for refused in [
        "::",
        "::1",
        "::ffff:0:a00:1",
        "64:ff9b:1::1",
        "64:ff9b:1:ffff::8.8.8.8",
        "100::1",
        "1fff:ffff::1",
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:2::1",
        "2001:10::1",
        "2001:1ff:ffff::1",
        "2001:db8::1",
        "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
        "3fff::1",
        "3fff:fff:ffff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ] {
        assert!(!egress.allows(address(refused)), "{refused}");
    }
    for called in
        ["2001:200::1", "2001:4860:4860::8888", "2606:4700::1111", "2a00::1", "3fff:1000::1", "3ffe::1"]
    {
        assert!(egress.allows(address(called)), "{called}");
    }
}

#[test]
fn the_operator_allows_networks() {
    let networks = [("10.1.0.0", 16), ("127.0.0.1", 32), ("fd00::", 8), ("2001:db8::", 126)];
    let egress = Egress::new(networks.map(|(text, bits)| network(text, bits)).to_vec());
    for (text, allowed) in [
        ("10.1.0.0", true),
        ("10.1.255.255", true),
        ("::ffff:10.1.2.3", true),
        ("10.0.255.255", false),
        ("10.2.0.0", false),
        ("::10.1.2.3", false),
        ("127.0.0.1", true),
        ("127.0.0.2", false),
        ("fdff::1", true),
        ("fc00::1", false),
        ("2001:db8::3", true),
        ("2001:db8::4", false),
        ("::1", false),
        ("9.9.9.9", true),
    ] {
        assert_eq!(egress.allows(address(text)), allowed, "{text}");
    }
    let all = Egress::new(vec![network("0.0.0.0", 0), network("::", 0)]);
    assert!(all.allows(address("169.254.169.254")) && all.allows(address("::1")));
}
