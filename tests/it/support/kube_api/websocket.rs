//! The vsock subresource: a websocket to an agent's socket.

use super::*;

/// What virt-api does: looks at the machine, upgrades, and then has virt-handler dial.
pub(super) async fn websocket(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &Request,
    state: &Mutex<State>,
    agents: &Path,
) -> std::io::Result<()> {
    let parts: Vec<&str> = request.path.split('/').collect();
    let (namespace, name) = (parts[5], parts[7]);
    let refused = {
        let mut state = state.lock().unwrap();
        let object = state
            .of("virtualmachineinstances")
            .get(&format!("{namespace}/{name}"))
            .cloned();
        match object {
            None => {
                let message = format!("virtualmachineinstance.kubevirt.io \"{name}\" not found");
                Some(status(
                    404,
                    "NotFound",
                    &message,
                    json!({"name": name, "group": "kubevirt.io", "kind": "virtualmachineinstance"}),
                ))
            }
            Some(vmi) if vmi["spec"]["domain"]["devices"]["autoattachVSOCK"] != true => Some(
                status(400, "BadRequest", "VSOCK is not attached.", Value::Null),
            ),
            Some(vmi)
                if vmi["status"]["phase"] != "Running" && vmi["status"]["phase"] != "Scheduled" =>
            {
                let message = format!(
                    "Unable to connect to VirtualMachineInstance because phase is {} instead of Running or Scheduled",
                    vmi["status"]["phase"].as_str().unwrap_or_default()
                );
                Some(status(400, "BadRequest", &message, Value::Null))
            }
            Some(_) => None,
        }
    };
    if let Some(refused) = refused {
        return send(stream, refused).await;
    }
    assert_eq!(request.protocol.as_deref(), Some("plain.kubevirt.io"));
    let both = format!(
        "{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11",
        request.key.as_deref().unwrap_or_default()
    );
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, both.as_bytes());
    let accept = data_encoding::BASE64.encode(digest.as_ref());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: plain.kubevirt.io\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await?;
    let fault = {
        let mut state = state.lock().unwrap();
        state.seen.open += 1;
        state.seen.most_open = state.seen.most_open.max(state.seen.open);
        state.seen.dialed.push(Instant::now());
        state.take(|fault| matches!(fault, Fault::Bytes(_)))
    };
    let port = request.query.get("port").cloned().unwrap_or_default();
    let agent = agents.join(format!("{namespace}.{name}.{port}"));
    let tls = request.query.get("tls").is_none_or(|tls| tls != "false");
    let result = match fault {
        Some(Fault::Bytes(bytes)) => write_message(stream, &bytes).await.map(|()| false),
        _ => carry(stream, &agent, tls).await,
    };
    let mut state = state.lock().unwrap();
    state.seen.open -= 1;
    state.seen.closed_well += usize::from(result.is_ok_and(|well| well));
    Ok(())
}

/// Carries bytes between the websocket and the agent; whether the client said goodbye.
pub(super) async fn carry(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    agent: &Path,
    tls: bool,
) -> std::io::Result<bool> {
    let agent = UnixStream::connect(agent).await?;
    let mut agent: Box<dyn super::super::https::Bytes> = match tls {
        false => Box::new(agent),
        true => {
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config()));
            let name = rustls::pki_types::ServerName::try_from("a.name.nobody.looks.at").unwrap();
            Box::new(connector.connect(name, agent).await?)
        }
    };
    let (mut incoming, mut outgoing) = (Vec::new(), vec![0; 32 << 10]);
    loop {
        while let Some((opcode, payload, len)) = client_frame(&incoming) {
            incoming.drain(..len);
            match opcode {
                8 => return Ok(payload == 1000u16.to_be_bytes()),
                2 => {
                    agent.write_all(&payload).await?;
                    agent.flush().await?;
                }
                _ => {}
            }
        }
        tokio::select! {
            read = stream.read_buf(&mut incoming) => if read? == 0 { return Ok(false); },
            read = agent.read(&mut outgoing) => match read? {
                0 => {
                    stream.shutdown().await?;
                    // What the client still sends is read: unread, it would make the kernel drop what was sent.
                    while stream.read_buf(&mut incoming).await? > 0 {}
                    return Ok(says_goodbye(&incoming));
                }
                read => write_message(stream, &outgoing[..read]).await?,
            },
        }
    }
}

/// Whether a close frame with 1000 is among these frames.
pub(super) fn says_goodbye(mut bytes: &[u8]) -> bool {
    while let Some((opcode, payload, len)) = client_frame(bytes) {
        if opcode == 8 {
            return payload == 1000u16.to_be_bytes();
        }
        bytes = &bytes[len..];
    }
    false
}

/// A message as virt-handler sends it: in fragments, the last one empty, a ping between them.
pub(super) async fn write_message(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
) -> std::io::Result<()> {
    let mut frames = Vec::new();
    for (n, part) in bytes.chunks(10_240).enumerate() {
        frames.extend([if n == 0 { 0x02 } else { 0x00 }, 126]);
        frames.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
        frames.extend_from_slice(part);
        frames.extend([0x89, 1, b'p']);
    }
    frames.extend([0x80, 0]);
    stream.write_all(&frames).await?;
    stream.flush().await
}

/// Opcode, payload and length of a frame of a client, if it is whole. It must be masked.
pub(super) fn client_frame(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert!(second & 0x80 != 0, "a frame of a client that is not masked");
    let (len, at) = match second & 0x7f {
        126 => (
            usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
            4,
        ),
        127 => panic!("frames this long are not sent"),
        len => (usize::from(len), 2),
    };
    let mask = bytes.get(at..at + 4)?;
    let payload = bytes.get(at + 4..at + 4 + len)?;
    let payload = payload
        .iter()
        .zip(mask.iter().cycle())
        .map(|(b, m)| b ^ m)
        .collect();
    Some((first & 0x0f, payload, at + 4 + len))
}
