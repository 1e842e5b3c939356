//! The image's template with one service, and with several.

use lb_fixture::{TEMPLATE, World};

const NODES: [&str; 3] = ["s1 172.18.0.2", "s2 172.18.0.3 port=80 weight=5", "s3 fd00::3 drain=yes"];

fn render(template: &str, nodes: &[&str]) -> (World, String) {
    let world = World::with_template(template);
    nodes.iter().for_each(|node| world.register(node));
    world.command(env!("CARGO_BIN_EXE_render-cfg")).assert().success();
    let text = world.text();
    (world, text)
}

#[test]
fn one_service_gives_the_file_of_a_template_without_services() {
    let (before, rest) = TEMPLATE.split_once("{{#if unclaimed}}\n").unwrap();
    let plain = before.to_owned() + rest.split_once("{{/if}}\n").unwrap().1;
    let plain = plain
        .replace("{{#each routes}}\n    use_backend {{name}} if {{condition}}\n{{/each}}\n", "")
        .replace("{{fallback}}", "nodes")
        .replace("{{#each services}}\nbackend {{name}}\n", "backend nodes\n")
        .replace("{{#if cookie}}\n", "")
        .replace("softengheigvd\n{{/if}}\n", "softengheigvd\n")
        .replace("{{cookie}}", "NODESESSID")
        .replace("{{check}}", "/health")
        .replace("{{#each nodes}}", "{{#each addresses}}")
        .replace("{{/each}}\n\n{{/each}}\n", "{{/each}}\n\n");
    assert!(plain.contains("    default_backend nodes\n\nbackend nodes\n"), "{plain}");
    for nodes in [&NODES[..], &[]] {
        assert_eq!(render(TEMPLATE, nodes).1, render(&plain, nodes).1);
    }
}

#[test]
fn each_service_has_a_section_and_its_routes() {
    let nodes = [
        "a1 172.18.0.4 role=api host=shop.example+*.shop.example path=/api cookie=none check=/healthz",
        "b1 172.18.0.5 role=shop host=shop.example cookie=JSESSIONID",
        "b2 172.18.0.6 role=shop host=shop.example cookie=JSESSIONID",
    ];
    let (world, text) = render(TEMPLATE, &nodes);
    world.assert_valid();
    let (_, frontend) = text.split_once("frontend http\n").unwrap();
    let (frontend, _) = frontend.split_once("\nbackend ").unwrap();
    let routes: Vec<&str> = frontend.lines().map(str::trim).filter(|line| line.contains("_backend ")).collect();
    assert_eq!(
        routes,
        [
            "use_backend api if { req.hdr(host),host_only,lower -m str shop.example } { path,concat(/) -m beg /api/ }",
            "use_backend shop if { req.hdr(host),host_only,lower -m str shop.example }",
            "use_backend api if { req.hdr(host),host_only,lower -m reg ^[^.]+[.]shop[.]example$ } { path,concat(/) -m beg /api/ }",
            "default_backend unclaimed",
        ]
    );
    let sections: Vec<&str> = text.lines().filter(|line| line.starts_with("backend ")).collect();
    assert_eq!(sections, ["backend api", "backend shop", "backend unclaimed", "backend stats", "backend live"]);
    let (api, shop) = text.split_once("backend api\n").unwrap().1.split_once("backend shop\n").unwrap();
    assert!(api.contains("option httpchk GET /healthz\n") && api.contains("server a1 ") && !api.contains("cookie "), "{api}");
    assert!(shop.contains("cookie JSESSIONID prefix") && shop.contains("GET /health\n") && shop.contains("server b2 "), "{shop}");

    // With nodes of the default service, these answer elsewhere.
    let (world, text) = render(TEMPLATE, &[&nodes[..], &NODES].concat());
    world.assert_valid();
    assert!(text.contains("    default_backend nodes\n") && !text.contains("unclaimed"), "{text}");
}
