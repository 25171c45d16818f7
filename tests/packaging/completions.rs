//! Completions for bash, zsh and fish, written from the help.

use crate::help::{Flag, Page, pages};
use crate::hold;
use std::fmt::Write;

#[test]
fn completions_offer_exactly_the_commands_and_flags_there_are() {
    let pages = pages();
    hold("packaging/completions/afferent.bash", &bash(&pages));
    hold("packaging/completions/_afferent", &zsh(&pages));
    hold("packaging/completions/afferent.fish", &fish(&pages));
}

fn bash(pages: &[Page]) -> String {
    let mut text = String::from(
        "# Completion of afferent for bash, written from its help.\n\
         _afferent() {\n    \
         local word=${COMP_WORDS[COMP_CWORD]} path='' part offers\n    \
         for part in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n        \
         case \"$path $part\" in\n",
    );
    for page in pages.iter().filter(|page| !page.words.is_empty()) {
        let (last, before) = page.words.split_last().unwrap();
        let before = if before.is_empty() {
            String::new()
        } else {
            format!(" {}", before.join(" "))
        };
        writeln!(
            text,
            "        \"{before} {last}\") path=\"{before} {last}\" ;;"
        )
        .unwrap();
    }
    text.push_str("        esac\n    done\n    case $path in\n");
    for page in pages {
        let path: String = page.words.iter().map(|word| format!(" {word}")).collect();
        let offers: Vec<&str> = page
            .commands
            .iter()
            .map(|(name, _)| name.as_str())
            .chain(page.flags.iter().map(|flag| flag.name.as_str()))
            .chain(positional(page).iter().copied())
            .chain(["--help"])
            .collect();
        writeln!(text, "    \"{path}\") offers=\"{}\" ;;", offers.join(" ")).unwrap();
    }
    text.push_str("    esac\n    case \"$path ${COMP_WORDS[COMP_CWORD-1]}\" in\n");
    for page in pages {
        let path: String = page.words.iter().map(|word| format!(" {word}")).collect();
        for flag in page.flags.iter().filter(|flag| !flag.words().is_empty()) {
            let (name, words) = (&flag.name, flag.words().join(" "));
            writeln!(text, "    \"{path} {name}\") offers=\"{words}\" ;;").unwrap();
        }
    }
    text.push_str(
        "    esac\n    \
         # The value of a flag, and any other word, is a file for all that is known here.\n    \
         mapfile -t COMPREPLY < <(compgen -W \"$offers\" -- \"$word\")\n\
         }\n\
         complete -o default -F _afferent afferent\n",
    );
    text
}

fn zsh(pages: &[Page]) -> String {
    let mut text = String::from(
        "#compdef afferent\n# Completion of afferent for zsh, written from its help.\n",
    );
    for page in pages {
        let name: String = page.words.iter().map(|word| format!("_{word}")).collect();
        writeln!(text, "\n_afferent_at{name}() {{").unwrap();
        if !page.commands.is_empty() {
            text.push_str("    local -a commands=(\n");
            for (command, about) in &page.commands {
                writeln!(text, "        '{command}:{}'", for_zsh(short(about))).unwrap();
            }
            text.push_str("    )\n    local state line\n");
        }
        text.push_str("    _arguments -C \\\n");
        for flag in &page.flags {
            writeln!(
                text,
                "        '*{}[{}]{}' \\",
                flag.name,
                for_zsh(&flag.help),
                zsh_value(flag)
            )
            .unwrap();
        }
        text.push_str("        '--help[display usage information]'");
        if page.commands.is_empty() {
            match positional(page) {
                [] => {}
                words => write!(text, " \\\n        '1:command:({})'", words.join(" ")).unwrap(),
            }
            text.push_str(" \\\n        '*:file:_files'\n}\n");
            continue;
        }
        text.push_str(" \\\n        '1: :->command' '*:: :->rest'\n    case $state in\n");
        text.push_str(
            "    command) _describe command commands ;;\n    rest)\n        case $line[1] in\n",
        );
        for (command, _) in &page.commands {
            writeln!(text, "        {command}) _afferent_at{name}_{command} ;;").unwrap();
        }
        text.push_str("        esac\n        ;;\n    esac\n}\n");
    }
    text.push_str("\n_afferent_at \"$@\"\n");
    text
}

fn zsh_value(flag: &Flag) -> String {
    match (&flag.value, flag.words()) {
        (None, _) => String::new(),
        (Some(value), words) if words.is_empty() => format!(":{}:_files", for_zsh(value)),
        (Some(_), words) => format!(":value:({})", words.join(" ")),
    }
}

/// Words that come first where a command is given without a flag.
fn positional(page: &Page) -> &'static [&'static str] {
    match page.words.first().map(String::as_str) {
        Some("check-config") => &["serve", "sense", "mirror"],
        _ => &[],
    }
}

fn fish(pages: &[Page]) -> String {
    let mut text = String::from("# Completion of afferent for fish, written from its help.\n");
    for page in pages {
        let seen = |word: &String| format!("__fish_seen_subcommand_from {word}");
        let mut here: Vec<String> = page.words.iter().map(seen).collect();
        let names: Vec<&str> = page
            .commands
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        if !names.is_empty() {
            here.push(format!(
                "not __fish_seen_subcommand_from {}",
                names.join(" ")
            ));
        }
        let here = here.join("; and ");
        for (command, about) in &page.commands {
            writeln!(
                text,
                "complete -c afferent -n '{here}' -f -a {command} -d '{}'",
                for_fish(short(about))
            )
            .unwrap();
        }
        for word in positional(page) {
            writeln!(text, "complete -c afferent -n '{here}' -a {word}").unwrap();
        }
        for flag in &page.flags {
            let needs = match (&flag.value, flag.words()) {
                (None, _) => String::new(),
                (Some(_), words) if words.is_empty() => " -r".to_owned(),
                (Some(_), words) => format!(" -xa '{}'", words.join(" ")),
            };
            let name = flag.name.trim_start_matches('-');
            writeln!(
                text,
                "complete -c afferent -n '{here}' -l {name}{needs} -d '{}'",
                for_fish(&flag.help)
            )
            .unwrap();
        }
    }
    text
}

/// What a command is for, without the example.
fn short(about: &str) -> &str {
    about.split(" Example:").next().unwrap_or(about)
}

/// Within single quotes, with what zsh reads as its own marked as text.
fn for_zsh(text: &str) -> String {
    let text = text.replace('\'', "");
    text.replace(':', "\\:")
        .replace('[', "\\[")
        .replace(']', "\\]")
}

/// Within single quotes.
fn for_fish(text: &str) -> String {
    text.replace(['\\', '\''], "")
}
