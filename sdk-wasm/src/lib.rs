use wasm_bindgen::prelude::*;
use std::collections::{BTreeMap,VecDeque};
use std::cell::RefCell;
#[wasm_bindgen(raw_module="./host.js")]
extern "C" { fn get(h:f64,k:&str)->Option<String>; fn set(h:f64,k:&str,v:&str)->bool; }
thread_local!{ static M: RefCell<(BTreeMap<String,String>,VecDeque<String>)> = RefCell::default(); }
#[wasm_bindgen]
pub fn put(k:&str,v:&str)->String{ M.with(|m|{ let mut m=m.borrow_mut(); let m=&mut *m; m.0.insert(k.to_string(),v.to_string()); let n=m.0.len(); m.1.push_back(format!("{k}:{v}:{n}")); set(1.0,k,v); m.1.iter().cloned().collect::<Vec<_>>().join(",") }) }
#[wasm_bindgen]
pub fn time()->Option<f64>{ get(1.0,"x").and_then(|s|s.parse::<f64>().ok()) }
