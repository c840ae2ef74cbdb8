#if os(iOS)
import AVFoundation
import CoreImage
import SwiftUI
import UIKit

/// The camera's picture with what the network finds in it. The app's Info.plist needs NSCameraUsageDescription.
public struct CameraView: UIViewControllerRepresentable {
    private let finder: Finder

    public init(finder: Finder) { self.finder = finder }

    public func makeUIViewController(context: Context) -> UIViewController { Camera(finder) }

    public func updateUIViewController(_ controller: UIViewController, context: Context) {}
}

final class Camera: UIViewController, AVCaptureVideoDataOutputSampleBufferDelegate {
    private let finder: Finder
    private let session = AVCaptureSession()
    private let worker = DispatchQueue(label: "camera")  // the only one that touches the finder and the session
    private let images = CIContext()
    private let layer = UIImageView()
    private lazy var preview = AVCaptureVideoPreviewLayer(session: session)

    init(_ finder: Finder) {
        self.finder = finder
        super.init(nibName: nil, bundle: nil)
    }

    @available(*, unavailable)
    required init?(coder: NSCoder) { fatalError("made in code only") }

    override func viewDidLoad() {
        super.viewDidLoad()
        preview.videoGravity = .resizeAspect
        view.layer.addSublayer(preview)
        layer.contentMode = .scaleAspectFit  // as the preview, and of the same frames
        view.addSubview(layer)
        AVCaptureDevice.requestAccess(for: .video) { granted in
            if granted { self.worker.async { self.start() } }
        }
    }

    override func viewDidLayoutSubviews() {
        super.viewDidLayoutSubviews()
        preview.frame = view.bounds
        layer.frame = view.bounds
    }

    override func viewDidDisappear(_ animated: Bool) {
        super.viewDidDisappear(animated)
        worker.async { self.session.stopRunning() }
    }

    private func start() {
        guard let device = AVCaptureDevice.default(.builtInWideAngleCamera, for: .video, position: .back),
              let input = try? AVCaptureDeviceInput(device: device)
        else { return }
        session.sessionPreset = .vga640x480
        let output = AVCaptureVideoDataOutput()
        output.videoSettings = [kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA]
        output.alwaysDiscardsLateVideoFrames = true
        output.setSampleBufferDelegate(self, queue: worker)
        guard session.canAddInput(input), session.canAddOutput(output) else { return }
        session.addInput(input)
        session.addOutput(output)
        for connection in [output.connection(with: .video), preview.connection] {
            connection?.videoOrientation = .portrait  // both upright
        }
        session.startRunning()
    }

    func captureOutput(_ output: AVCaptureOutput, didOutput buffer: CMSampleBuffer, from connection: AVCaptureConnection) {
        guard let frame = CMSampleBufferGetImageBuffer(buffer) else { return }
        let image = CIImage(cvPixelBuffer: frame)
        guard let upright = images.createCGImage(image, from: image.extent),
              let found = try? finder.find(upright), let drawn = finder.picture(found)
        else { return }
        DispatchQueue.main.async { self.layer.image = UIImage(cgImage: drawn) }
    }
}
#endif
