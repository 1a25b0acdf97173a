//! `cargo ksim imports`.

use crate::arguments::ImportsArguments;
use crate::output::{Exit, Failure, print};
use crate::program::open_image;
use serde_json::json;

pub(crate) fn run(arguments: &ImportsArguments) -> Result<Exit, Failure> {
    let image = open_image(&arguments.driver)?;
    let imports: Vec<_> = image.imports().collect();
    let missing = imports.iter().filter(|import| !import.available).count();
    let shown = imports.iter().filter(|import| !arguments.missing || !import.available);
    if arguments.json {
        let list: Vec<_> = shown
            .map(|import| json!({ "library": import.library, "name": import.name, "available": import.available }))
            .collect();
        print(&format_args!("{:#}", json!({ "imports": list, "missing": missing })));
    } else {
        for import in shown {
            let mark = if import.available { "has  " } else { "lacks" };
            print(&format_args!("{mark}  {}!{}", import.library, import.name));
        }
        print(&format_args!("{} imports, of which this kernel lacks {missing}", imports.len()));
    }
    Ok(if missing == 0 { Exit::Clean } else { Exit::Found })
}
