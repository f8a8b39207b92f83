//! `volcli` against a running suite: what it prints where, and how it ends.

use serde_json::Value;
use testkit::{Cmd, Story, Suite};

/// 0 done, 1 failed, 2 wrong usage, 3 partly done; data on stdout, talk on stderr.
pub fn volcli_ends_as_it_says(suite: &Suite) {
    let story = Story::beside(suite, "cli");
    let h1 = suite.h1();
    let code = |line: &str| {
        let outcome = story.volcli(line);
        if !outcome.is_ok() {
            assert_eq!(outcome.stdout.trim(), "", "an error is told on stderr: {outcome}");
            assert_ne!(outcome.stderr.trim(), "", "{outcome}");
        }
        outcome.code()
    };
    for usage in ["", "nonsense", "volume", "volume get", "volume get a/b/c", "volume list a.b"] {
        assert_eq!(code(usage), 2, "volcli {usage}");
    }
    for usage in
        ["volume create cli/v --opt size", "-o xml tenant list", "--master x volume list-all"]
    {
        assert_eq!(code(usage), 2, "volcli {usage}");
    }
    // What volcli itself can tell from the command line is usage; the rest is for volmaster to say.
    for failure in ["volume get cli/none", "tenant get nobody", "mount get cli/none"] {
        assert_eq!(code(failure), 1, "volcli {failure}");
    }
    assert_eq!(code("volume create cli/v --opt sise=1"), 2, "there is no such option");
    assert_eq!(code("volume create nobody/v"), 1);
    let away = Cmd::suite("volcli").words("--master http://127.0.0.1:1 volume list-all").run();
    assert_eq!(away.code(), 1, "{away}");
    away.refused_with(&["127.0.0.1:1", "volmaster"]);

    assert_eq!(code("volume create cli/one --opt size=10MB"), 0);
    assert_eq!(code("volume create cli two --opt size=10MB"), 0, "the older form");
    assert_eq!(code("volume create cli/one"), 0, "again");
    assert_eq!(code("volume create cli/one --opt size=11MB"), 1, "a conflict");
    let used = story.volume("used");
    assert_eq!(code(&format!("volume create {used}")), 0);
    let container = h1.start("cli", &format!("-v {used}:/data"), "sleep 1000");
    volcli_shows(&story, &used);
    story.volcli(&format!("volume remove {used} --yes")).refused_with(&["h1"]);
    let partly = story.volcli(&format!("volume remove cli/one {used} --yes"));
    assert_eq!(partly.code(), 3, "{partly}");
    assert!(partly.stderr.contains("h1"), "it says why: {partly}");
    container.remove();
    assert_eq!(code(&format!("volume remove cli/two {used} --yes")), 0);
    story.until_nothing_is_left();
}

/// Lists and single things in every format.
fn volcli_shows(story: &Story<'_>, used: &str) {
    let names = story.volcli("volume list cli");
    assert_eq!(names.lines(), ["cli/one", "cli/two", "cli/used"]);
    assert!(story.volcli("volume list-all").lines().contains(&"cli/one"));
    assert!(story.volcli("tenant list").lines().contains(&"cli"));
    assert!(story.volcli("host list").lines().contains(&"h1"));
    assert!(story.volcli("mount list").lines().contains(&used));
    let mount = story.volcli(&format!("mount get {used}")).json();
    assert_eq!((&mount["host"], &mount["state"]), (&"h1".into(), &"mounted".into()), "{mount}");
    for line in ["volume get cli/one", "tenant get cli", "host get h1", "global get"] {
        assert!(story.volcli(line).json().is_object(), "volcli {line}");
        for format in ["table", "yaml", "name"] {
            assert_ne!(story.volcli(&format!("{line} -o {format}")).ok(), "", "volcli {line}");
        }
    }
    for line in ["volume list cli", "tenant history cli", "mount list", "host list"] {
        assert!(story.volcli(&format!("{line} -o json")).json().is_array(), "volcli {line}");
        assert!(story.volcli(&format!("{line} -o table")).lines().len() > 1, "volcli {line}");
    }
    let status: Value = story.volcli("status -o json").json();
    assert_eq!((&status["store"]["ok"], &status["images"]["ok"]), (&true.into(), &true.into()));
    assert_eq!(story.volcli("status").code(), 0);
    for line in ["help", "help volume create", "volume create --help", "completion bash"] {
        assert!(story.volcli(line).ok().contains("volcli"), "volcli {line}");
    }
}
