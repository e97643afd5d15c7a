//! As much of a shell as it takes to find the commands in a line of an example: quotes, `$(...)`, and what ends a command.

/// The commands of a line, each as its words. Redirections and what they name are left out.
pub fn commands(line: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    read(&mut line.chars().peekable(), &mut found, false);
    found.retain(|command| !command.is_empty());
    found
}

fn read(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, found: &mut Vec<Vec<String>>, nested: bool) {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut quote = None;
    while let Some(c) = rest.next() {
        match (c, quote) {
            ('\'' | '"', Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('$', None | Some('"')) if rest.next_if_eq(&'(').is_some() => {
                read(rest, found, true);
                // Whatever it prints.
                word.get_or_insert_default().push('x');
            }
            (')', None) if nested => break,
            ('#', None) if word.is_none() => {
                rest.by_ref().for_each(drop);
            }
            (' ', None) => words.extend(word.take()),
            ('|' | ';' | '&', None) => {
                words.extend(word.take());
                found.push(std::mem::take(&mut words));
            }
            ('>' | '<', None) => {
                words.extend(word.take());
                // `<(...)` is a file with a command's output.
                if rest.next_if_eq(&'(').is_some() {
                    read(rest, found, true);
                    words.push("x".to_owned());
                } else {
                    while rest.next_if(|c| !matches!(c, '|' | ';' | '&' | ')')).is_some() {}
                }
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    found.push(words);
}

/// Those of a program, the program's name first; variables that are set for it alone are left out.
pub fn of_program(line: &str, program: &str) -> Vec<Vec<String>> {
    let all = commands(line).into_iter();
    let without_variables = all.map(|words| {
        let is_variable =
            |word: &String| word.split_once('=').is_some_and(|(name, _)| !name.starts_with('-'));
        words.into_iter().skip_while(is_variable).collect::<Vec<_>>()
    });
    without_variables.filter(|words| words.first().is_some_and(|first| first == program)).collect()
}

#[test]
fn commands_are_found_wherever_they_stand() {
    let of = |line| of_program(line, "creel");
    assert_eq!(of("creel ps --json | jq -r '.[].id'"), [["creel", "ps", "--json"]]);
    assert_eq!(of("id=$(creel create --image tiny)"), [["creel", "create", "--image", "tiny"]]);
    assert_eq!(of("A=1 B='2 3' creel run # now"), [["creel", "run"]]);
    assert_eq!(of("source <(creel completions bash)"), [["creel", "completions", "bash"]]);
    assert_eq!(of("creel debug x >~/file | creel ps"), [vec!["creel", "debug", "x"], vec!["creel", "ps"]]);
    assert_eq!(
        of("creel exec \"$id\" -- sh -c 'echo $CI; pwd'"),
        [["creel", "exec", "$id", "--", "sh", "-c", "echo $CI; pwd"]]
    );
    assert_eq!(
        of("creel rm -f $(creel ps --json | jq '.[]')"),
        [vec!["creel", "ps", "--json"], vec!["creel", "rm", "-f", "x"]]
    );
}
