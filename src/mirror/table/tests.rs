//! Indexes, and what may be there only once.

use super::*;

fn rack(n: u128, name: &str, external_id: Option<&str>) -> Rack {
    Rack {
        external_id: external_id.map(str::to_owned),
        ..Rack::new(Uuid::from_u128(n), name.into())
    }
}

fn write(store: &Store, changes: &[(Option<Row>, Option<Row>)]) -> Result<(), InventoryError> {
    let changes: Vec<_> = changes
        .iter()
        .map(|(before, after)| (before.as_ref(), after.as_ref()))
        .collect();
    store.inventory(|tables| Ok((tables.apply(&changes)?, Ending::Commit)))
}

fn look<T>(store: &Store, read: impl FnOnce(&Tables<'_>) -> Result<T, Fault>) -> T {
    store
        .inventory(|tables| Ok((read(tables)?, Ending::Discard)))
        .unwrap()
}

#[test]
fn two_rows_may_swap_what_is_unique_but_never_share_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), "mirror.redb", 1 << 20)
        .unwrap()
        .store;
    let (a, b) = (rack(1, "a", Some("x")), rack(2, "b", Some("y")));
    let (a2, b2) = (rack(1, "a", Some("y")), rack(2, "b", Some("x")));
    let row = |rack: &Rack| Some(Row::Rack(Box::new(rack.clone())));
    write(&store, &[(None, row(&a)), (None, row(&b))]).unwrap();
    write(&store, &[(row(&a), row(&a2)), (row(&b), row(&b2))]).unwrap();
    assert_eq!(look(&store, |t| t.racks()), [a2, b2.clone()]);
    let error = write(&store, &[(row(&b2), row(&rack(2, "b", Some("y"))))]).unwrap_err();
    assert!(matches!(error, InventoryError::NotUnique(_)), "{error}");
    assert_eq!(look(&store, |t| t.check()), Vec::<String>::new());
    assert_eq!(look(&store, |t| t.generation()), 2);
}

#[test]
fn a_discarded_transaction_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), "mirror.redb", 1 << 20)
        .unwrap()
        .store;
    let row = Row::Rack(Box::new(rack(1, "a", None)));
    store
        .inventory(|tables| Ok((tables.apply(&[(None, Some(&row))])?, Ending::Discard)))
        .unwrap();
    assert!(look(&store, |t| t.racks()).is_empty());
    assert_eq!(look(&store, |t| t.generation()), 0);
}

#[test]
fn an_index_that_does_not_fit_its_rows_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), "mirror.redb", 1 << 20)
        .unwrap()
        .store;
    let row = Row::Rack(Box::new(rack(1, "a", Some("x"))));
    write(&store, &[(None, Some(row))]).unwrap();
    store
        .inventory(|tables| {
            let key = Index::RackExternalId.key(b"x");
            tables.index.remove(key.as_slice())?;
            tables
                .index
                .insert(Index::RackPair.key(b"q").as_slice(), [9].as_slice())?;
            Ok(((), Ending::Commit))
        })
        .unwrap();
    assert_eq!(look(&store, |t| t.check()).len(), 2);
}

#[test]
fn racks_that_components_point_to_are_found_once_each() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), "mirror.redb", 1 << 20)
        .unwrap()
        .store;
    let component = |n: u128, rack: u128| {
        let mut row = Component::new(Uuid::from_u128(n), ComponentType::Compute);
        row.rack_id = Some(Uuid::from_u128(rack));
        (None, Some(Row::Component(Box::new(row))))
    };
    write(&store, &[component(1, 7), component(2, 7), component(3, 9)]).unwrap();
    let racks = look(&store, |t| t.racks_pointed_to());
    assert_eq!(racks, [Uuid::from_u128(7), Uuid::from_u128(9)]);
}
